"""The terminal view of a running agent, drawn by rich from a `ViewState`.

A thread of its own paints, at most eight times a second and only when something changed, so that
neither rendering nor a stopped terminal ever delays the event loop. Everything that a visitor or
the server chose goes through `printable` and into `Text`, never into markup.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moleport_agent.events import AgentEvent
from moleport_agent.printable import printable
from moleport_agent.view_state import RequestView, ViewState

REDRAW_SECONDS: Final = 0.125
COUNTDOWN_SECONDS: Final = 1.0
"""How often a waiting agent redraws its countdown."""
CLOSE_SECONDS: Final = 1.0
_STATE_STYLES: Final = {
    "online": "bold green",
    "connecting": "bold yellow",
    "draining": "bold yellow",
    "offline": "bold red",
}
_STATUS_STYLES: Final = {1: "cyan", 2: "green", 3: "cyan", 4: "yellow", 5: "bold red"}


class LiveDisplay:
    """Shows the agent on a terminal; a context manager that leaves the last picture standing."""

    def __init__(
        self,
        state: ViewState,
        console: Console,
        *,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Make a display; entering it starts to draw.

        Args:
            state: the picture at the start.
            console: the terminal.
            now: monotonic seconds.
            clock: the time of day, in the zone to show.
        """
        self._state = state
        self._console = console
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = False
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)

    def __enter__(self) -> Self:
        self._changed.set()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def observe(self, event: AgentEvent) -> None:
        """Take an event in; returns at once."""
        with self._lock:
            changed = self._state.apply(event, now=self._now(), at=self._clock())
        if changed:
            self._changed.set()

    def note(self, text: str) -> None:
        """Show a message of the log; returns at once."""
        with self._lock:
            self._state.note(text)
        self._changed.set()

    def close(self) -> None:
        """Draw the last picture and give the terminal back; idempotent."""
        self._closing = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        # The terminal may vanish at any moment; the tunnels go on without it.
        with contextlib.suppress(OSError), self._live:
            while not self._closing:
                waiting = self._state.retry_at is not None
                self._changed.wait(COUNTDOWN_SECONDS if waiting else None)
                self._changed.clear()
                self._paint()
                if not self._closing:
                    time.sleep(REDRAW_SECONDS)
            self._paint()

    def _paint(self) -> None:
        with self._lock:
            picture = render(
                self._state,
                width=self._console.width,
                height=self._console.height,
                now=self._now(),
            )
        self._live.update(picture, refresh=True)


def render(state: ViewState, *, width: int, height: int, now: float) -> RenderableType:
    """Draw the picture for a terminal of this size."""
    parts: list[RenderableType] = [_header(state, now), Text(), _tunnels(state, width)]
    parts.extend(Text(printable(note), style="yellow") for note in state.notes)
    parts.append(Text())
    parts.append(_counts(state))
    used = 6 + len(state.notes) + len(state.tunnels) * (2 if width < 100 else 1)
    rows = [state.requests[i] for i in range(min(len(state.requests), max(height - used, 3)))]
    if rows:
        parts.append(_requests(rows, width, named=len(state.tunnels) > 1))
    return Group(*parts)


def _header(state: ViewState, now: float) -> Text:
    text = Text(overflow="fold")
    text.append("moleport", style="bold")
    text.append("  ")
    text.append(state.state, style=_STATE_STYLES[state.state])
    if state.latency_ms is not None and state.state == "online":
        text.append(f"  {state.latency_ms:.0f} ms", style="dim")
    text.append(f"  {printable(state.server)}", style="dim")
    if state.state == "connecting" and state.attempt > 1:
        text.append(f"  attempt {state.attempt}", style="yellow")
    if state.state == "offline" and state.retry_at is not None:
        text.append(f"  reconnecting in {max(state.retry_at - now, 0):.0f} s", style="yellow")
    if state.reason:
        text.append(f"\n{printable(state.reason, 300)}", style="yellow")
    return text


def _tunnels(state: ViewState, width: int) -> Table:
    # Below 100 columns a row of three columns would fold its URL, which nobody can copy then.
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    if width >= 100:
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
    for name, tunnel in state.tunnels.items():
        url = (
            Text(printable(tunnel.public_url), style="bold cyan")
            if tunnel.public_url
            else Text("no address yet", style="dim")
        )
        target = Text(f"→ {printable(tunnel.target)}")
        label = Text(printable(name), style="bold")
        if width >= 100:
            table.add_row(label, url, target)
        else:
            table.add_row(Text.assemble(label, "  ", url))
            table.add_row(Text.assemble("  ", target))
        if tunnel.trouble is not None:
            trouble = Text(printable(tunnel.trouble, 300), style="red")
            table.add_row(*(["", trouble] if width >= 100 else [trouble]))
    return table


def _counts(state: ViewState) -> Text:
    noun = "request" if state.total_requests == 1 else "requests"
    text = Text(f"{state.total_requests} {noun}", style="dim")
    if state.failed_requests:
        text.append(f"  {state.failed_requests} failed", style="red")
    return text


def _requests(rows: list[RequestView], width: int, *, named: bool) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8)
    if named and width >= 80:
        table.add_column(max_width=16, no_wrap=True, overflow="ellipsis")
    table.add_column(width=7, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(width=3)
    table.add_column(justify="right", no_wrap=True)
    for row in rows:
        seen = row.request
        cells = [Text(row.at.strftime("%H:%M:%S"), style="dim")]
        if named and width >= 80:
            cells.append(Text(printable(seen.name)))
        cells.append(Text(printable(seen.method, 16) if seen.status else "tcp"))
        cells.append(Text(printable(seen.path, width) if seen.status else printable(seen.peer)))
        status = str(seen.status) if seen.status else ""
        cells.append(Text(status, style=_STATUS_STYLES.get(seen.status // 100, "")))
        cells.append(Text(_duration(seen.duration_ms), style="dim"))
        table.add_row(*cells)
    return table


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.0f} s"
