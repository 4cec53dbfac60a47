from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command_line import printed_json, run
from helpers.control_server import ControlServer

TUNNEL = {
    "tunnel_id": "t1",
    "protocol": "http",
    "label": "shop.example.com",
    "public_url": "https://shop.example.com",
    "connected_since": "2025-01-31T12:00:00Z",
    "request_count": 3,
    "client_addr": "10.0.0.1:5000",
}


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.healthy()
        running.answer("GET", "/api/server", {"version": "1.2.3", "domains": []})
        yield running


@pytest.fixture
def environ(server: ControlServer, tmp_path: Path) -> dict[str, str]:
    return {
        "MOLEPORT_SERVER": server.url,
        "MOLEPORT_TOKEN": "secret",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }


def test_tunnels_are_listed_in_columns(server: ControlServer, environ: dict[str, str]) -> None:
    server.answer("GET", "/api/tunnels", [TUNNEL])

    result = run("list", **environ)

    heads, row = result.stdout.splitlines()
    assert heads.split()[:2] == ["PUBLIC", "URL"]
    assert row.split()[:2] == ["https://shop.example.com", "http"]


def test_no_tunnels_are_a_sentence_and_an_empty_array(environ: dict[str, str]) -> None:
    assert "moleport http 3000" in run("list", **environ).stdout
    assert printed_json(run("list", "--json", **environ)) == []


def test_tunnels_are_listed_as_json(server: ControlServer, environ: dict[str, str]) -> None:
    server.answer("GET", "/api/tunnels", [TUNNEL | {"key_of_a_newer_server": 1}])

    assert printed_json(run("list", "--json", **environ)) == [TUNNEL]


def test_status_tells_version_and_counts(server: ControlServer, environ: dict[str, str]) -> None:
    assert printed_json(run("status", "--json", **environ)) == {
        "server": server.url,
        "ok": True,
        "version": "1.2.3",
        "active_sessions": 1,
        "active_tunnels": 2,
        "token_accepted": True,
    }


def test_status_of_a_server_without_extensions_still_tries_the_token(
    server: ControlServer, environ: dict[str, str]
) -> None:
    server.answer("GET", "/api/server", None, status=404)

    result = run("status", **environ)

    assert result.exit_code == 0
    assert "accepted" in result.stdout


def test_status_with_a_wrong_token_shows_the_server_and_fails(
    server: ControlServer, environ: dict[str, str]
) -> None:
    server.answer("GET", "/api/server", {"error": "invalid token"}, status=401)

    result = run("status", **environ)

    assert result.exit_code == 4
    assert "healthy" in result.stdout
    assert "NOT accepted" in result.stdout
