import io
import threading
from datetime import datetime

import pytest
from rich.console import Console

from moleport_agent.display import LiveDisplay, render
from moleport_agent.events import (
    AgentEvent,
    Connected,
    Disconnected,
    LatencyMeasured,
    RequestSeen,
    TunnelOpened,
    TunnelRefused,
)
from moleport_agent.view_state import ViewState

NOON = datetime(2025, 1, 31, 12)  # noqa: DTZ001 - the view shows local time
URL = "https://quick-otter-and-friends.tunnels.example.com:8443"


def picture(
    *events: AgentEvent,
    width: int = 100,
    height: int = 24,
    names: tuple[str, ...] = ("web",),
    now: float = 0.0,
) -> str:
    state = ViewState(
        "https://tunnels.example.com:4040", dict.fromkeys(names, "http://localhost:3000")
    )
    for event in events:
        state.apply(event, now=0.0, at=NOON)
    console = Console(
        record=True, force_terminal=True, width=width, height=height, file=io.StringIO()
    )
    console.print(render(state, width=width, height=height, now=now))
    return console.export_text(styles=False)


ONLINE = (
    Connected("s", "https://tunnels.example.com:4040", False),
    TunnelOpened("web", URL, "http://localhost:3000"),
    LatencyMeasured(12.4),
    RequestSeen("web", "GET", "/api/users", 200, 12.4, "1.2.3.4:5"),
    RequestSeen("web", "POST", "/broken", 502, 12345.0, "1.2.3.4:5"),
)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_view_shows_what_counts_and_fits(width: int) -> None:
    shown = picture(*ONLINE, width=width)

    for part in ("online", "12 ms", URL, "http://localhost:3000", "12:00:00", "GET", "/api/users",
                 "200", "502", "12 s", "2 requests", "1 failed"):  # fmt: skip
        assert part in shown
    assert max(len(line) for line in shown.splitlines()) <= width


def test_a_waiting_agent_shows_reason_and_countdown() -> None:
    shown = picture(Disconnected("connection reset", 5.0), now=2.0)

    assert "reconnecting in 3 s" in shown
    assert "connection reset" in shown


def test_a_refused_tunnel_shows_why() -> None:
    shown = picture(TunnelRefused("web", "name_taken", "shop is already in use", True))

    assert "refused (name_taken): shop is already in use" in shown
    assert "no address yet" in shown


def test_several_tunnels_tell_whose_request_it_was() -> None:
    shown = picture(*ONLINE, names=("web", "db"))

    assert "web" in shown.splitlines()[-1]


def test_a_low_terminal_shows_fewer_requests() -> None:
    many = [RequestSeen("web", "GET", f"/{number}", 200, 1, "p") for number in range(100)]

    shown = picture(*ONLINE, *many, height=12)

    assert len(shown.splitlines()) <= 12
    assert "/99" in shown
    assert "/0 " not in shown


def test_no_foreign_text_reaches_the_terminal_as_a_command() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07[bold]"

    shown = picture(
        TunnelOpened("web", f"https://a/{evil}", evil),
        TunnelRefused("web", evil, evil, True),
        Disconnected(evil, 1.0),
        RequestSeen("web", evil, f"/{evil}", 200, 1, evil),
    )

    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2J" in shown
    assert "[bold]" in shown


def test_a_live_display_draws_the_last_picture_and_ends() -> None:
    stream = io.StringIO()
    console = Console(force_terminal=True, width=100, height=24, file=stream)

    with LiveDisplay(ViewState("https://a", {"web": "3000"}), console) as display:
        for event in ONLINE:
            display.observe(event)
        display.note("the log says something")

    assert "/broken" in stream.getvalue()
    assert "the log says something" in stream.getvalue()


def test_a_burst_of_events_is_drawn_a_few_times_only() -> None:
    stream = io.StringIO()
    console = Console(force_terminal=True, width=100, height=24, file=stream)

    with LiveDisplay(ViewState("https://a", {"web": "3000"}), console) as display:
        for number in range(5000):
            display.observe(RequestSeen("web", "GET", f"/{number}", 200, 1, "p"))

    assert "/4999" in stream.getvalue()
    assert stream.getvalue().count("requests") < 100


def test_a_terminal_that_vanishes_never_stops_the_observer() -> None:
    broke = threading.Event()

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            broke.set()
            raise OSError("gone")

    console = Console(force_terminal=True, width=100, height=24, file=Gone())
    with LiveDisplay(ViewState("https://a", {"web": "3000"}), console) as display:
        assert broke.wait(5)
        display.observe(ONLINE[0])
