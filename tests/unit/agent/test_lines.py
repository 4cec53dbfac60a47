import json
from datetime import UTC, datetime

import pytest

from moleport_agent.events import (
    AgentEvent,
    Connected,
    Connecting,
    Disconnected,
    Draining,
    LatencyMeasured,
    RequestSeen,
    RequestsSkipped,
    TunnelClosed,
    TunnelOpened,
    TunnelRefused,
    UpstreamFailed,
)
from moleport_agent.lines import json_line, json_lost, plain_line

EVENTS = {
    "connecting": (Connecting("https://a", 1), "connecting to https://a"),
    "connecting again": (Connecting("https://a", 2), None),
    "connected": (Connected("s", "https://a", False), "online at https://a"),
    "resumed": (Connected("s", "https://a", True), "online at https://a, session resumed"),
    "tunnel_opened": (TunnelOpened("web", "https://x.a", "3000"), "web: https://x.a -> 3000"),
    "tunnel_refused": (
        TunnelRefused("web", "name_taken", "already in use", True),
        "web: refused (name_taken): already in use",
    ),
    "refused for now": (
        TunnelRefused("web", "name_taken", "already in use", False),
        "web: refused (name_taken): already in use, will ask again",
    ),
    "tunnel_closed": (TunnelClosed("web", "by admin"), "web: closed: by admin"),
    "disconnected": (Disconnected("reset", 2.5), "offline: reset, again in 2.5 s"),
    "disconnected for good": (Disconnected("token revoked", None), "offline: token revoked"),
    "request_seen": (
        RequestSeen("web", "GET", "/a", 200, 12.4, "1.2.3.4:5"),
        "web: GET /a 200 12 ms 1.2.3.4:5",
    ),
    "tcp connection": (
        RequestSeen("db", "", "", 0, 1000, "1.2.3.4:5"),
        "db: connection from 1.2.3.4:5, 1000 ms",
    ),
    "requests_skipped": (RequestsSkipped(7), "7 more requests"),
    "latency_measured": (LatencyMeasured(3), None),
    "draining": (Draining(30, "upgrade"), "moving over within 30 s: upgrade"),
    "upstream_failed": (
        UpstreamFailed("web", "3000", "refused"),
        "web: cannot reach 3000: refused",
    ),
}


@pytest.mark.parametrize(("event", "line"), EVENTS.values(), ids=EVENTS)
def test_an_event_is_said_in_one_line(event: AgentEvent, line: str | None) -> None:
    assert plain_line(event) == line


@pytest.mark.parametrize(
    ("kind", "event"),
    [(kind, event) for kind, (event, _) in EVENTS.items() if "_" in kind],
    ids=[kind for kind in EVENTS if "_" in kind],
)
def test_json_names_the_event_and_all_its_fields(kind: str, event: AgentEvent) -> None:
    written = json.loads(json_line(event, datetime(2025, 1, 31, 12, tzinfo=UTC)))

    assert written.pop("at") == "2025-01-31T12:00:00.000Z"
    assert written.pop("event") == kind
    assert set(written) == set(event.__dataclass_fields__)


def test_a_visitor_can_neither_move_the_cursor_nor_forge_a_line() -> None:
    seen = RequestSeen("web", "GET\x1b[A", "/\x1b[2J\nweb: GET /forged 200", 200, 1, "p")

    line = str(plain_line(seen))

    assert line.isprintable()
    assert line.startswith("web: GET\\x1b[A /\\x1b[2J\\x0aweb")


def test_json_takes_a_path_that_is_no_text() -> None:
    written = json.loads(
        json_line(RequestSeen("w", "GET", "/\udcff", 200, 1, "p"), datetime.now(UTC))
    )

    assert written["path"] == "/\\udcff"


def test_json_tells_what_a_slow_reader_missed() -> None:
    assert json.loads(json_lost(3)) == {"event": "lines_lost", "count": 3}


@pytest.mark.parametrize(
    ("url", "port", "text"),
    [
        ("https://a.test", None, "web: https://a.test -> 3000"),
        ("https://a.test", 8080, "web: https://a.test and container port 8080 -> 3000"),
        ("", 5432, "web: container port 5432 -> 3000"),
    ],
)
def test_a_line_says_every_address_of_a_tunnel(url: str, port: int | None, text: str) -> None:
    assert plain_line(TunnelOpened("web", url, "3000", port)) == text
