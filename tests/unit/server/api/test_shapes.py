from moleport_server.api.shapes import CreatedTokenView


def test_a_secret_does_not_show_in_a_traceback() -> None:
    created = CreatedTokenView(id="1", label="ci", token="hunter2")

    assert "hunter2" not in repr(created)
