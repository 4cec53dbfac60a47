from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from helpers.control_server import ControlServer, stream_events
from moleport_agent.doctor import service
from moleport_agent.doctor.findings import Outcome
from moleport_agent.doctor.route import find_route
from moleport_agent.doctor.service import (
    check_http,
    check_latency,
    check_streaming,
    check_token,
    check_websocket,
)
from moleport_agent.settings import Secret, ServerSettings

CONNECT = ("GET", "/api/v1/tunnel/connect")


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.healthy()
        yield running


@pytest.fixture
def settings(server: ControlServer) -> ServerSettings:
    return ServerSettings(url=server.url, read_token=lambda: Secret("secret"))


def utc_now() -> datetime:
    return datetime.now(UTC)


def test_a_healthy_server_passes_every_check(
    server: ControlServer, settings: ServerSettings
) -> None:
    findings = [
        *check_http(settings, utc_now),
        check_token(settings),
        check_websocket(find_route(server.url), settings),
        check_latency(settings),
        check_streaming(settings),
    ]

    assert [finding.outcome for finding in findings] == [Outcome.OK] * 6


@pytest.mark.parametrize(
    ("value", "status"), [({"error": "x"}, 404), ({"other": 1}, 200), ("x", 200), ({}, 302)],
    ids=["not found", "another api", "text", "redirect"],
)  # fmt: skip
def test_what_is_no_tunnel_server_is_recognised(
    server: ControlServer, settings: ServerSettings, value: Any, status: int
) -> None:
    server.answer("GET", "/api/status", value, status=status)

    reach, clock = check_http(settings, utc_now)

    assert reach.outcome is Outcome.FAILED
    assert "control listener" in str(reach.remedy)
    assert clock.outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("skew", "outcome"),
    [(0, Outcome.OK), (-100, Outcome.WARNING), (100, Outcome.WARNING), (4000, Outcome.FAILED)],
)
def test_a_clock_that_is_wrong_is_noticed(
    settings: ServerSettings, skew: int, outcome: Outcome
) -> None:
    _, clock = check_http(settings, lambda: utc_now() + timedelta(seconds=skew))

    assert clock.outcome is outcome


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_server_without_a_clock_is_only_a_warning(
    server: ControlServer, settings: ServerSettings, date: str
) -> None:
    status = {"ok": True, "active_sessions": 0, "active_tunnels": 0}
    server.answer("GET", "/api/status", status, headers={"Date": date})

    _, clock = check_http(settings, utc_now)

    assert clock.outcome is Outcome.WARNING


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "moleport login"), (500, "log"), (503, "try again")]
)
def test_a_token_that_is_not_accepted_is_told(
    server: ControlServer, settings: ServerSettings, status: int, remedy: str
) -> None:
    server.answer("GET", "/api/tunnels", {"error": "invalid token"}, status=status)

    finding = check_token(settings)

    assert finding.outcome is Outcome.FAILED
    assert remedy in str(finding.remedy)


@pytest.mark.parametrize(
    ("status", "part"),
    [(200, "status 200 instead of 101"), (403, "refused"), (502, "status 502")],
)
def test_an_upgrade_that_something_swallows_is_told(
    server: ControlServer, settings: ServerSettings, status: int, part: str
) -> None:
    server.answer(*CONNECT, {}, status=status)

    finding = check_websocket(find_route(server.url), settings)

    assert finding.outcome is Outcome.FAILED
    assert part in finding.sentence


def test_an_upgrade_without_the_subprotocol_is_told(
    server: ControlServer, settings: ServerSettings
) -> None:
    async def accept(request: web.Request) -> web.StreamResponse:
        upgraded = web.WebSocketResponse()
        await upgraded.prepare(request)
        return upgraded

    server.routes[CONNECT] = accept

    finding = check_websocket(find_route(server.url), settings)

    assert finding.outcome is Outcome.FAILED
    assert "subprotocol" in finding.sentence


def test_the_upgrade_carries_the_token(server: ControlServer, settings: ServerSettings) -> None:
    check_websocket(find_route(server.url), settings)

    assert server.seen[0].headers["authorization"] == "Bearer secret"


def test_a_stream_that_is_held_back_is_told(
    server: ControlServer, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "STREAM_SECONDS", 0.3)
    server.routes[("GET", "/api/events")] = stream_events([])

    finding = check_streaming(settings)

    assert finding.outcome is Outcome.FAILED
    assert "buffering" in str(finding.remedy)


def test_a_stream_that_ends_at_once_is_told(
    server: ControlServer, settings: ServerSettings
) -> None:
    server.routes[("GET", "/api/events")] = stream_events([], then_wait=False)

    assert check_streaming(settings).outcome is Outcome.FAILED


def test_a_server_that_vanished_fails_each_check() -> None:
    settings = ServerSettings(url="http://127.0.0.1:1", read_token=lambda: Secret("secret"))

    findings = [
        check_http(settings, utc_now)[0],
        check_token(settings),
        check_websocket(find_route(settings.url), settings),
        check_latency(settings),
        check_streaming(settings),
    ]

    assert all(finding.outcome is Outcome.FAILED and finding.remedy for finding in findings)
