"""Choose how a running agent is shown: terminal view, plain lines or JSON lines."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from moleport_agent import logs
from moleport_agent.cli.options import OutputFlags
from moleport_agent.events import (
    AgentEvent,
    Connected,
    Disconnected,
    Observer,
    TunnelClosed,
    TunnelOpened,
    TunnelRefused,
    UpstreamFailed,
)
from moleport_agent.line_sink import LineSink
from moleport_agent.lines import json_line, json_lost, plain_line, plain_lost
from moleport_agent.settings import AgentSettings

_TOLD_QUIETLY: Final = (TunnelOpened, TunnelRefused, TunnelClosed, Disconnected, UpstreamFailed)
_SHOW_CURSOR: Final = "\x1b[?25h"


@contextmanager
def open_view(
    settings: AgentSettings, output: OutputFlags
) -> Iterator[tuple[Observer, Callable[[], None]]]:
    """Show an agent while the context lasts.

    Yields:
        The observer for the agent, and what gives the terminal back in an emergency.
    """
    if output.json or output.quiet or output.verbose or not sys.stdout.isatty():
        logs.configure(logging.DEBUG if output.verbose else logging.WARNING)
        with LineSink(sys.stdout, json_lost if output.json else plain_lost) as sink:
            yield _line_observer(sink, output), lambda: None
        return
    from rich.console import Console

    from moleport_agent.display import LiveDisplay
    from moleport_agent.view_state import ViewState

    targets = {tunnel.name: tunnel.target.text for tunnel in settings.tunnels}
    with LiveDisplay(ViewState(settings.server.url, targets), Console()) as display:
        logs.configure(logging.WARNING, display.note)
        yield display.observe, _show_cursor


def _line_observer(sink: LineSink, output: OutputFlags) -> Observer:
    def observe_json(event: AgentEvent) -> None:
        if not output.quiet or isinstance(event, _TOLD_QUIETLY):
            sink.put(json_line(event, datetime.now(UTC)))

    said = ""

    def observe_plain(event: AgentEvent) -> None:
        nonlocal said
        if output.quiet and not isinstance(event, _TOLD_QUIETLY):
            return
        if isinstance(event, Disconnected):
            # An outage lasts many attempts; a log wants to know that it began, and why.
            if event.reason == said and event.retry_in_seconds is not None:
                return
            said = event.reason
        elif isinstance(event, Connected):
            said = ""
        line = plain_line(event)
        if line is not None:
            sink.put(line)

    return observe_json if output.json else observe_plain


def _show_cursor() -> None:
    sys.stdout.write(_SHOW_CURSOR)
