import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from helpers.command_line import printed_json, run
from helpers.control_server import ControlServer, stream_events
from moleport_agent import live_events

TUNNEL = {
    "tunnel_id": "t1",
    "protocol": "http",
    "label": "shop.example.com",
    "public_url": "https://shop.example.com",
    "connected_since": "2025-01-31T12:00:00Z",
    "request_count": 3,
    "client_addr": "10.0.0.1:5000",
}


def capture(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "tunnel_id": "t1",
        "method": "GET",
        "path": f"/{number}",
        "status": 200,
        "request_bytes": 0,
        "response_bytes": 5,
        "duration_ms": 12,
        "captured_at": f"2025-01-31T12:00:0{number}Z",
        "request_body": None,
        "response_body": None,
    } | fields


def event(number: int) -> str:
    fields = {"request_id": f"r{number}", "tunnel_id": "t1", "label": "shop.example.com",
              "method": "GET", "path": f"/{number}", "status": 200, "duration_ms": 1.5,
              "request_bytes": 0, "response_bytes": 1, "peer": "1.2.3.4:5"}  # fmt: skip
    return f"id: {number}\nevent: request.finished\ndata: {json.dumps(fields)}\n\n"


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.healthy()
        running.answer("GET", "/api/tunnels", [TUNNEL])
        running.answer("GET", "/api/tunnels/t1/requests", [capture(2), capture(1)])
        yield running


@pytest.fixture
def environ(server: ControlServer, tmp_path: Path) -> dict[str, str]:
    return {
        "MOLEPORT_SERVER": server.url,
        "MOLEPORT_TOKEN": "secret",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }


def test_past_requests_are_shown_oldest_first(
    server: ControlServer, environ: dict[str, str]
) -> None:
    result = run("requests", "shop", "--no-follow", "--limit", "2", **environ)

    assert result.exit_code == 0
    assert ["/1" in line for line in result.stdout.splitlines()] == [True, False]
    assert server.seen[-1].query == {"limit": "2"}


def test_following_repeats_nothing_and_ends_with_the_servers_refusal(
    server: ControlServer, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_events, "BACKOFF_FIRST_SECONDS", 0.0)
    lost = "event: events.lost\ndata: {}\n\n"
    greet = stream_events([event(2), lost, event(3)], then_wait=False)

    async def then_refuse(request: web.Request) -> web.StreamResponse:
        server.answer("GET", "/api/events", {"error": "invalid token"}, status=401)
        return await greet(request)

    server.routes[("GET", "/api/events")] = then_refuse

    result = run("requests", "--json", **environ)

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["request_id"] for line in lines] == ["r1", "r2", "r3"]
    assert set(lines[0]) == set(lines[2])
    assert "were not shown" in result.stderr
    assert "again in" in result.stderr
    assert result.exit_code == 4


def test_a_path_cannot_command_the_terminal(server: ControlServer, environ: dict[str, str]) -> None:
    server.answer("GET", "/api/tunnels/t1/requests", [capture(1, path="/\x1b[2J")])

    result = run("requests", "--no-follow", **environ)

    assert "/\\x1b[2J" in result.stdout


def test_a_request_is_shown_with_its_bodies(server: ControlServer, environ: dict[str, str]) -> None:
    server.answer("POST", "/api/tunnels/t1/replay/r1", capture(1, response_body="hi\nthere"))

    result = run("replay", "shop", "r1", **environ)

    assert result.stdout.endswith("response body:\n  hi\n  there\n")
    assert server.seen[-1].query == {}


def test_a_request_is_sent_again_when_asked(server: ControlServer, environ: dict[str, str]) -> None:
    server.answer("POST", "/api/tunnels/t1/replay/r1", capture(9))

    assert printed_json(run("replay", "shop", "r1", "--send", "--json", **environ))["id"] == "r9"
    assert server.seen[-1].query == {"send": "true"}


def test_an_unknown_tunnel_ends_with_five(environ: dict[str, str]) -> None:
    assert run("replay", "none", "r1", **environ).exit_code == 5
