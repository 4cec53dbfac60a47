"""Flow watch: the memory that slow readers hold, and the seconds that streams wait for credit.

One per process, shared by all sessions. At the receive budget no window grows and no stream opens; the
stream that has stalled longest is reset once it stalled for long enough, so that readers who stopped
for ever cannot keep everybody else out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import StreamReceiver
from moleport_wire.hoody.window import ReceiveBudget

SWEEP_SECONDS: Final = 5.0


class WatchedStream(Protocol):
    """A stream of any mux; hashed by identity."""

    receiver: StreamReceiver

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions; the receiver is not called."""


class FlowWatch:
    """Times stalls in both directions and ends the worst when memory runs out.

    Args:
        budget: the receive budget of the process.
        monotonic: the clock.
        patience_seconds: how long a reader may stall while the budget is exhausted.
    """

    def __init__(
        self, budget: ReceiveBudget, *, monotonic: Callable[[], float], patience_seconds: float
    ) -> None:
        self.budget = budget
        self._monotonic = monotonic
        self._patience = patience_seconds
        self._stalled: dict[WatchedStream, float] = {}
        self._blocked: dict[WatchedStream, float] = {}
        self._stalled_seconds = 0.0
        self._blocked_seconds = 0.0
        self.resets = 0
        """Streams that were reset for memory."""

    @property
    def stalled_streams(self) -> int:
        """Streams whose visitor does not read."""
        return len(self._stalled)

    @property
    def stalled_seconds(self) -> float:
        """Seconds that streams waited for their visitor, running stalls included."""
        now = self._monotonic()
        return self._stalled_seconds + sum(now - since for since in self._stalled.values())

    @property
    def blocked_seconds(self) -> float:
        """Seconds that visitors' bytes waited for credit of an agent, running waits included."""
        now = self._monotonic()
        return self._blocked_seconds + sum(now - since for since in self._blocked.values())

    def stream_stalled(self, stream: WatchedStream) -> None:
        """Note that a visitor does not read."""
        self._stalled[stream] = self._monotonic()

    def stream_drained(self, stream: WatchedStream) -> None:
        """Note that it reads again, or that the stream is gone."""
        since = self._stalled.pop(stream, None)
        if since is not None:
            self._stalled_seconds += self._monotonic() - since

    def stream_blocked(self, stream: WatchedStream) -> None:
        """Note that an agent grants no credit."""
        self._blocked[stream] = self._monotonic()

    def stream_unblocked(self, stream: WatchedStream) -> None:
        """Note that credit came, or that the stream is gone."""
        since = self._blocked.pop(stream, None)
        if since is not None:
            self._blocked_seconds += self._monotonic() - since

    def sweep(self) -> None:
        """Reset stalled streams, the longest first, while the budget is exhausted."""
        now = self._monotonic()
        while self.budget.is_exhausted and self._stalled:
            stream, since = next(iter(self._stalled.items()))
            if now - since < self._patience:
                return
            self.resets += 1
            stream.reset(Code.CALM_DOWN, "the visitor does not read and memory is short")
            stream.receiver.stream_reset(Code.CALM_DOWN, "stalled too long")
            self.stream_drained(stream)
