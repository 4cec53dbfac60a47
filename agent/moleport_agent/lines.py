"""What a running agent says when nobody looks at a terminal: one line per event.

`plain_line` is for people and logs, `json_line` for programs. The JSON shape is stable:

    {"at": "2025-01-31T12:00:00.000Z", "event": "tunnel_opened", "name": "web", "public_url": …}

`event` is the class of `events` in snake case, the other keys are its fields. Everything foreign in
a plain line is made printable first; JSON escapes by itself.
"""

import re
from datetime import datetime
from typing import Any, Final, assert_never

import msgspec

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
from moleport_agent.printable import printable

_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")


def plain_line(event: AgentEvent) -> str | None:
    """Say an event in one line; None: not worth one."""
    match event:
        case Connecting(server, attempt):
            return f"connecting to {server}" if attempt == 1 else None
        case Connected(_, server, resumed):
            return f"online at {server}" + (", session resumed" if resumed else "")
        case TunnelOpened(name, _, target):
            return f"{printable(name)}: {printable(event.address)} -> {printable(target)}"
        case TunnelRefused(name, code, message, is_final):
            ending = "" if is_final else ", will ask again"
            return f"{printable(name)}: refused ({printable(code)}): {printable(message)}{ending}"
        case TunnelClosed(name, reason):
            return f"{printable(name)}: closed: {printable(reason)}"
        case Disconnected(reason, retry_in_seconds):
            return f"offline: {printable(reason)}{_retry(retry_in_seconds)}"
        case RequestSeen():
            return request_line(event)
        case RequestsSkipped(count):
            return f"{count} more requests"
        case LatencyMeasured():
            return None
        case Draining(deadline_seconds, reason):
            return f"moving over within {deadline_seconds:.0f} s: {printable(reason)}"
        case UpstreamFailed(name, target, reason):
            return f"{printable(name)}: cannot reach {printable(target)}: {printable(reason)}"
        case _:
            assert_never(event)


def request_line(event: RequestSeen) -> str:
    """Say one request of a visitor in one line."""
    name, peer = printable(event.name), printable(event.peer)
    if not event.status:
        return f"{name}: connection from {peer}, {event.duration_ms:.0f} ms"
    return (
        f"{name}: {printable(event.method)} {printable(event.path)} "
        f"{event.status} {event.duration_ms:.0f} ms {peer}"
    )


def json_line(event: AgentEvent, at: datetime) -> str:
    """Write an event as one JSON object.

    Args:
        event: what happened.
        at: when, in UTC.
    """
    fields: dict[str, Any] = {
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": _WORD_START.sub("_", type(event).__name__).lower(),
    }
    for key, value in msgspec.to_builtins(event).items():
        fields[key] = _encodable(value) if isinstance(value, str) else value
    return msgspec.json.encode(fields).decode()


def json_lost(count: int) -> str:
    """Tell in the JSON stream how many lines a slow reader missed."""
    return msgspec.json.encode({"event": "lines_lost", "count": count}).decode()


def plain_lost(count: int) -> str:
    """Tell in plain text how many lines a slow reader missed."""
    return f"({count} lines were not shown)"


def _encodable(text: str) -> str:
    """Escape what UTF-8 cannot carry: lone surrogates of a path that was no text."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _retry(seconds: float | None) -> str:
    return "" if seconds is None else f", again in {max(seconds, 0.1):.1f} s"
