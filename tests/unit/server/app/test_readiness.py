from moleport_server.app.readiness import Readiness


def test_a_server_is_not_ready_before_it_listens_nor_while_it_drains() -> None:
    readiness = Readiness()
    said = [readiness.not_ready_because()]
    readiness.is_ready = True
    said.append(readiness.not_ready_because())
    readiness.is_draining = True
    said.append(readiness.not_ready_because())

    assert said == ["starting", None, "draining"]
