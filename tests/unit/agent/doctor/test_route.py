import socket
import threading

import pytest

from moleport_agent.doctor import route as route_module
from moleport_agent.doctor.findings import Outcome
from moleport_agent.doctor.route import Route, check_names, check_proxy, check_tcp, find_route


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_without_a_proxy_the_way_is_direct() -> None:
    route = find_route("https://tunnels.example.com")

    assert route == Route(host="tunnels.example.com", port=443, tls=True)
    assert check_proxy(route).outcome is Outcome.OK


def test_a_proxy_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128")

    route = find_route("https://tunnels.example.com:4040")
    finding = check_proxy(route)

    assert route.first_hop == ("proxy.example", 3128)
    assert "proxy.example:3128" in finding.sentence
    assert "hunter2" not in finding.sentence


def test_a_proxy_may_be_written_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")

    assert find_route("https://a").proxy == "http://proxy.example:3128"


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "tunnels.example.com")

    assert find_route("https://tunnels.example.com").proxy is None


def test_an_unusable_proxy_fails_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")

    finding = check_proxy(find_route("https://a"))

    assert finding.outcome is Outcome.FAILED
    assert "HTTPS_PROXY" in str(finding.remedy)


def test_a_name_without_an_address_fails() -> None:
    finding = check_names(Route(host="no-such-host.invalid", port=1, tls=True))

    assert finding.outcome is Outcome.FAILED
    assert "no-such-host.invalid" in finding.sentence


def test_a_name_that_is_none_fails() -> None:
    assert check_names(Route(host="a" * 80, port=1, tls=True)).outcome is Outcome.FAILED


def test_an_address_needs_no_resolver() -> None:
    finding = check_names(Route(host="127.0.0.1", port=1, tls=True))

    assert (finding.outcome, finding.sentence) == (Outcome.OK, "127.0.0.1 is 127.0.0.1")


def test_a_listening_port_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        finding = check_tcp(Route(host="127.0.0.1", port=port, tls=False))

    assert finding.outcome is Outcome.OK


def test_a_closed_port_fails_with_advice() -> None:
    finding = check_tcp(Route(host="127.0.0.1", port=1, tls=False))

    assert finding.outcome is Outcome.FAILED
    assert "refuses connections" in finding.sentence


def test_a_port_that_swallows_everything_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_module, "STEP_SECONDS", 0.3)
    # A full backlog drops further connections silently, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        port = listening.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        route = Route(host="127.0.0.1", port=port, tls=False)
        with pytest.raises(TimeoutError):
            route.connect(0.3)
        for filler in fillers:
            filler.close()


def answer_connect(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", Outcome.OK),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Outcome.FAILED),
    ],
    ids=["allows", "refuses"],
)
def test_the_proxys_own_verdict_is_told(answer: bytes, outcome: Outcome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=answer_connect, args=(listening, answer))
        thread.start()

        finding = check_tcp(Route(host="tunnels.example.com", port=443, tls=True, proxy=proxy))

        thread.join(10)

    assert finding.outcome is outcome
    assert "127.0.0.1" in finding.sentence or "403" in finding.sentence
