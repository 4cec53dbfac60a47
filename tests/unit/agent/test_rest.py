from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from helpers.control_server import ControlServer
from moleport_agent.errors import (
    BadAnswer,
    ConfigError,
    ConnectError,
    NotAuthorised,
    NotFound,
    Rejected,
)
from moleport_agent.rest import ServerClient
from moleport_agent.settings import Secret, ServerSettings

TUNNEL: dict[str, Any] = {
    "tunnel_id": "11111111-1111-4111-8111-111111111111",
    "protocol": "http",
    "label": "shop.example.com",
    "public_url": "https://shop.example.com",
    "connected_since": "2025-01-31T12:00:00Z",
    "request_count": 3,
    "client_addr": "10.0.0.1:5000",
    "key_of_a_newer_server": True,
}
CAPTURE = {
    "id": "r1",
    "tunnel_id": TUNNEL["tunnel_id"],
    "conn_id": "c1",
    "method": "GET",
    "path": "/?q=1",
    "status": 200,
    "request_bytes": 0,
    "response_bytes": 5,
    "duration_ms": 12,
    "captured_at": "2025-01-31T12:00:01Z",
    "request_body": None,
    "response_body": "hello",
}
TOKEN = {
    "id": "t1",
    "token_hash": "00",
    "label": "ci",
    "created_at": "2025-01-31T12:00:00Z",
    "last_used_at": None,
    "scope": None,
    "tunnel_count": 0,
}


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        yield running


@pytest.fixture
def client(server: ControlServer) -> Iterator[ServerClient]:
    settings = ServerSettings(url=server.url, read_token=lambda: Secret("secret"))
    with ServerClient(settings) as opened:
        yield opened


def test_status_needs_no_token(server: ControlServer, client: ServerClient) -> None:
    server.healthy()

    assert client.status().active_tunnels == 2
    assert "authorization" not in server.seen[0].headers


def test_tunnels_are_read_and_unknown_keys_ignored(
    server: ControlServer, client: ServerClient
) -> None:
    server.answer("GET", "/api/tunnels", [TUNNEL])

    (row,) = client.tunnels()

    assert row.public_url == "https://shop.example.com"
    assert server.seen[0].headers["authorization"] == "Bearer secret"


def test_a_token_that_changes_is_sent_anew(server: ControlServer) -> None:
    tokens = iter(["first", "second"])
    settings = ServerSettings(url=server.url, read_token=lambda: Secret(next(tokens)))
    server.healthy()

    with ServerClient(settings) as client:
        client.tunnels()
        client.tunnels()

    assert [seen.headers["authorization"] for seen in server.seen] == [
        "Bearer first",
        "Bearer second",
    ]


def test_each_call_has_its_method_path_and_query(
    server: ControlServer, client: ServerClient
) -> None:
    path = f"/api/tunnels/{TUNNEL['tunnel_id']}"
    server.answer("GET", path, TUNNEL)
    server.answer("DELETE", path, None, status=204)
    server.answer("GET", f"{path}/requests", [CAPTURE])
    server.answer("POST", f"{path}/replay/r1", CAPTURE)
    server.answer("GET", "/api/tokens", [TOKEN])
    server.answer("POST", "/api/tokens", {"id": "t1", "label": "ci", "token": "raw"}, status=201)
    server.answer("DELETE", "/api/tokens/t1", None, status=204)
    server.answer("GET", "/api/sessions", [{"id": "s"}])
    server.answer("GET", "/api/server", {"version": "1.0"})

    client.tunnel(TUNNEL["tunnel_id"])
    client.close_tunnel(TUNNEL["tunnel_id"])
    client.requests(TUNNEL["tunnel_id"], limit=7)
    client.replay(TUNNEL["tunnel_id"], "r1", send=True)
    client.tokens()
    created = client.create_token("ci", scope="shop-*")
    client.delete_token("t1")
    sessions = client.sessions()

    assert client.server().version == "1.0"
    assert sessions == [{"id": "s"}]
    assert (created.token, "raw" in repr(created)) == ("raw", False)
    assert [(seen.method, seen.query) for seen in server.seen[2:4]] == [
        ("GET", {"limit": "7"}),
        ("POST", {"send": "true"}),
    ]
    assert server.seen[5].body == b'{"label":"ci","scope":"shop-*"}'


REFUSALS = {
    401: NotAuthorised,
    403: NotAuthorised,
    404: NotFound,
    409: Rejected,
    429: Rejected,
    500: Rejected,
    502: ConnectError,
    503: ConnectError,
    301: BadAnswer,
}


@pytest.mark.parametrize(
    ("status", "kind"), REFUSALS.items(), ids=[str(status) for status in REFUSALS]
)
def test_a_refusal_becomes_the_error_that_says_what_to_do(
    server: ControlServer, client: ServerClient, status: int, kind: type[Exception]
) -> None:
    server.answer("GET", "/api/tunnels", {"error": "because", "code": "x"}, status=status)

    with pytest.raises(kind) as refusal:
        client.tunnels()

    assert type(refusal.value) is kind
    if isinstance(refusal.value, Rejected):
        assert (refusal.value.reason, refusal.value.code) == ("because", "x")


def test_a_refusal_that_is_no_json_still_has_a_reason(
    server: ControlServer, client: ServerClient
) -> None:
    server.answer("GET", "/api/tunnels", None, status=418)

    with pytest.raises(Rejected, match="status 418"):
        client.tunnels()


@pytest.mark.parametrize("value", [{}, [{"tunnel_id": 5}], "x"], ids=["object", "types", "text"])
def test_an_answer_of_another_shape_is_not_believed(
    server: ControlServer, client: ServerClient, value: Any
) -> None:
    server.answer("GET", "/api/tunnels", value)

    with pytest.raises(BadAnswer, match="something unexpected"):
        client.tunnels()


def test_a_redirect_never_gets_the_token(server: ControlServer, client: ServerClient) -> None:
    server.answer("GET", "/api/tunnels", {}, status=302, headers={"Location": "/elsewhere"})

    with pytest.raises(BadAnswer, match="redirects to /elsewhere"):
        client.tunnels()

    assert len(server.seen) == 1


def test_a_server_that_is_away_is_a_connect_error() -> None:
    settings = ServerSettings(url="http://127.0.0.1:1", read_token=lambda: Secret("secret"))

    with ServerClient(settings) as client, pytest.raises(ConnectError, match="cannot connect"):
        client.status()


def test_a_token_that_cannot_be_read_is_an_error_of_the_settings(server: ControlServer) -> None:
    def unreadable() -> NoReturn:
        raise OSError("gone")

    settings = ServerSettings(url=server.url, read_token=unreadable)

    with (
        ServerClient(settings) as client,
        pytest.raises(ConfigError, match="cannot read the token"),
    ):
        client.tunnels()


@pytest.mark.parametrize(
    "text",
    [TUNNEL["tunnel_id"], "shop.example.com", "https://shop.example.com", "shop"],
    ids=["id", "label", "url", "first label"],
)
def test_a_tunnel_is_found_by_whatever_people_copy(
    server: ControlServer, client: ServerClient, text: str
) -> None:
    other = TUNNEL | {"tunnel_id": "2", "label": "20005", "public_url": "tcp://example.com:20005"}
    server.answer("GET", "/api/tunnels", [TUNNEL, other])

    assert client.find_tunnel(text).tunnel_id == TUNNEL["tunnel_id"]


def test_an_ambiguous_name_is_not_guessed(server: ControlServer, client: ServerClient) -> None:
    other = TUNNEL | {"tunnel_id": "2", "label": "shop.example.org", "public_url": "https://x"}
    server.answer("GET", "/api/tunnels", [TUNNEL, other])

    with pytest.raises(ConfigError, match="several tunnels"):
        client.find_tunnel("shop")
    with pytest.raises(NotFound, match="moleport list"):
        client.find_tunnel("none")


@pytest.mark.parametrize(("status", "accepted"), [(200, True), (401, False)])
def test_a_token_can_be_tried(
    server: ControlServer, client: ServerClient, status: int, accepted: bool
) -> None:
    server.answer("GET", "/api/tunnels", [], status=status)

    assert client.is_token_accepted() is accepted
