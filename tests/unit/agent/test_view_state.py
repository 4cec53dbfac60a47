from datetime import datetime

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
from moleport_agent.view_state import KEPT_REQUESTS, MOST_TUNNELS, ViewState

NOON = datetime(2025, 1, 31, 12)  # noqa: DTZ001 - the view shows local time
OPENED = TunnelOpened("web", "https://x.a", "3000")


@pytest.fixture
def state() -> ViewState:
    return ViewState("https://a", {"web": "3000"})


def play(state: ViewState, *events: AgentEvent) -> list[bool]:
    return [state.apply(event, now=100.0, at=NOON) for event in events]


def request(status: int = 200, name: str = "web") -> RequestSeen:
    return RequestSeen(name, "GET", "/", status, 1.0, "1.2.3.4:5")


STATES = {
    "at the start": ([], "connecting", None),
    "online": ([Connecting("https://a", 1), Connected("s", "https://a", False)], "online", None),
    "lost": ([Connected("s", "https://a", False), Disconnected("reset", 3.0)], "offline", 103.0),
    "lost for good": ([Disconnected("revoked", None)], "offline", None),
    "trying again": ([Disconnected("reset", 3.0), Connecting("https://a", 2)], "connecting", None),
    "moving": ([Connected("s", "https://a", False), Draining(30, "upgrade")], "draining", None),
}


@pytest.mark.parametrize(("events", "name", "retry_at"), STATES.values(), ids=STATES)
def test_the_state_follows_the_connection(
    state: ViewState, events: list[AgentEvent], name: str, retry_at: float | None
) -> None:
    play(state, *events)

    assert (state.state, state.retry_at) == (name, retry_at)


def test_a_tunnel_shows_its_address_or_why_it_has_none(state: ViewState) -> None:
    play(state, OPENED)
    assert (state.tunnels["web"].public_url, state.tunnels["web"].trouble) == ("https://x.a", None)

    play(state, TunnelClosed("web", "by admin"))
    assert (state.tunnels["web"].public_url, state.tunnels["web"].trouble) == (
        None,
        "closed: by admin",
    )

    play(state, TunnelRefused("web", "name_taken", "in use", False))
    assert state.tunnels["web"].trouble == "refused (name_taken): in use; asking again"


def test_an_unreachable_service_is_shown_until_it_answers(state: ViewState) -> None:
    play(state, OPENED, UpstreamFailed("web", "3000", "refused"), request(502))
    assert state.tunnels["web"].trouble == "cannot reach 3000: refused"

    play(state, request(200))
    assert state.tunnels["web"].trouble is None


def test_requests_are_counted_and_only_the_last_are_kept(state: ViewState) -> None:
    play(state, *[request(500 if number % 2 else 200) for number in range(KEPT_REQUESTS + 10)])
    play(state, RequestsSkipped(5))

    assert state.total_requests == KEPT_REQUESTS + 15
    assert state.failed_requests == (KEPT_REQUESTS + 10) // 2
    assert len(state.requests) == KEPT_REQUESTS


def test_what_does_not_change_the_picture_needs_no_redraw(state: ViewState) -> None:
    play(state, OPENED, LatencyMeasured(12.1), UpstreamFailed("web", "3000", "refused"))

    assert play(state, LatencyMeasured(12.3), UpstreamFailed("web", "3000", "refused")) == [
        False,
        False,
    ]
    assert play(state, LatencyMeasured(40.0)) == [True]


def test_names_without_end_do_not_fill_the_memory(state: ViewState) -> None:
    play(state, *[request(name=f"t{number}") for number in range(MOST_TUNNELS + 10)])

    assert len(state.tunnels) == MOST_TUNNELS
