"""What the terminal view shows, without any terminal: events in, a picture of the agent out.

Pure and bounded: the last requests, one row per tunnel, some notes, and counters. `display` draws
it.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

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

KEPT_REQUESTS: Final = 200
"""More than the tallest terminal shows."""
KEPT_NOTES: Final = 3
"""Messages under the tunnels; older ones are in `--verbose` or in the plain lines."""
MOST_TUNNELS: Final = 1024
"""As many as one moleport.yaml may name."""


@dataclass(slots=True)
class TunnelView:
    """One row of the tunnel table."""

    target: str
    public_url: str | None = None
    trouble: str | None = None
    """Why there is no address, or why the local service cannot be reached."""
    requests: int = 0


@dataclass(frozen=True, slots=True)
class RequestView:
    """One row of the request table."""

    at: datetime
    request: RequestSeen


@dataclass(slots=True)
class ViewState:
    """The whole picture; `apply` is its only way to change."""

    server: str
    targets: dict[str, str]
    """Target by tunnel name, as configured."""
    state: str = "connecting"
    """`connecting`, `online`, `draining` or `offline`."""
    attempt: int = 1
    reason: str = ""
    """Why the agent is offline or draining."""
    retry_at: float | None = None
    """Monotonic seconds of the next attempt."""
    latency_ms: float | None = None
    total_requests: int = 0
    failed_requests: int = 0
    """Answers of 500 and above."""
    tunnels: dict[str, TunnelView] = field(default_factory=dict)
    requests: deque[RequestView] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))

    def __post_init__(self) -> None:
        for name, target in self.targets.items():
            self.tunnels[name] = TunnelView(target)

    def apply(self, event: AgentEvent, *, now: float, at: datetime) -> bool:
        """Take an event in.

        Args:
            event: what happened.
            now: monotonic seconds.
            at: the time of day to show.

        Returns:
            Whether anything that is shown has changed.
        """
        match event:
            case Connecting(server, attempt):
                self.server, self.attempt = server, attempt
                self.state, self.retry_at = "connecting", None
            case Connected(_, server, _):
                self.server, self.attempt = server, 1
                self.state, self.reason, self.retry_at = "online", "", None
            case Disconnected(reason, retry_in_seconds):
                self.state, self.reason, self.latency_ms = "offline", reason, None
                self.retry_at = None if retry_in_seconds is None else now + retry_in_seconds
            case Draining(_, reason):
                self.state, self.reason = "draining", reason
            case LatencyMeasured(milliseconds):
                if self.latency_ms is not None and round(self.latency_ms) == round(milliseconds):
                    return False
                self.latency_ms = milliseconds
            case TunnelOpened(name, _, target):
                row = self._row(name)
                row.public_url, row.target, row.trouble = event.address, target, None
            case TunnelRefused(name, code, message, is_final):
                row = self._row(name)
                ending = "" if is_final else "; asking again"
                row.public_url, row.trouble = None, f"refused ({code}): {message}{ending}"
            case TunnelClosed(name, reason):
                row = self._row(name)
                row.public_url, row.trouble = None, f"closed: {reason}"
            case UpstreamFailed(name, target, reason):
                trouble = f"cannot reach {target}: {reason}"
                row = self._row(name)
                if row.trouble == trouble:
                    return False
                row.trouble = trouble
            case RequestSeen():
                self._count(event, at)
            case RequestsSkipped(count):
                self.total_requests += count
            case _:
                assert_never(event)
        return True

    def note(self, text: str) -> None:
        """Show a message of the log."""
        self.notes.append(text)

    def _count(self, request: RequestSeen, at: datetime) -> None:
        self.total_requests += 1
        row = self._row(request.name)
        row.requests += 1
        if request.status >= 500:
            self.failed_requests += 1
        elif row.public_url is not None:
            # An answer is the proof that the local service is back.
            row.trouble = None
        self.requests.appendleft(RequestView(at, request))

    def _row(self, name: str) -> TunnelView:
        row = self.tunnels.get(name)
        if row is None:
            row = TunnelView("")
            if len(self.tunnels) < MOST_TUNNELS:
                self.tunnels[name] = row
        return row
