"""Credit: how much a peer may send, and when the receiver grants more.

Unit: payload bytes of DATA. The receiving side of a stream is three numbers: its window (how much may
be in flight), the credit the peer has left, and the bytes consumed but not granted again. Granting
waits until half a window is consumed, so that a small request costs no WINDOW frame at all.

Windows grow while the reader drains, has to wait for more, and the budget has room. What is in flight
is the queue that small answers on the same link stand in, so a window that is large enough for the
distance stays as it is: a larger one would carry nothing faster. The budget bounds the memory of a whole
server: it counts the windows that were given out (what peers *may* send) and the bytes that stalled
readers hold (what they *did* send).
"""

from collections.abc import Callable
from typing import Final

INITIAL_SESSION_WINDOW_BYTES: Final = 16 * 1024 * 1024
INITIAL_STREAM_WINDOW_BYTES: Final = 256 * 1024
MIN_STREAM_WINDOW_BYTES: Final = 16 * 1024
MAX_STREAM_WINDOW_BYTES: Final = 1024 * 1024
SESSION_GRANT_BYTES: Final = 1024 * 1024
"""The session window is granted again in steps of this size: one WINDOW frame per MiB."""
MAX_WINDOW: Final = 2**31 - 1
STARVED_SECONDS: Final = 0.002
"""A pause behind a grant that tells of distance: the peer had to wait for the grant to come."""
STARVED_GRANTS: Final = 3
"""So many of the eight grants of four windows have to be followed by such a pause, since a busy machine
makes some as well."""


class ReceiveBudget:
    """What all receive windows of one process may cost together.

    Streams take their first window from the budget by tier: full size for the first half, half size
    until three quarters, then 16 KiB, so that 5,000 stalled streams stay within 256 MiB and 10,000
    idle ones are still possible. Growth needs room in the first three quarters.

    Args:
        limit_bytes: what peers may have in flight and stalled readers may hold.
        first_window_bytes: the window of a stream at first.
        monotonic: tells how long readers wait for bytes; without it windows grow for every reader that
            drains.
    """

    __slots__ = (
        "_first", "_growth_limit", "_half", "committed_bytes", "held_bytes", "limit_bytes", "monotonic"
    )  # fmt: skip

    def __init__(
        self,
        limit_bytes: int,
        first_window_bytes: int,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.monotonic = monotonic
        self.limit_bytes = limit_bytes
        self._first = first_window_bytes
        self._half = limit_bytes // 2
        self._growth_limit = limit_bytes * 3 // 4
        self.committed_bytes = 0
        """Windows given out."""
        self.held_bytes = 0
        """Received by us, not yet taken by a stalled reader."""

    @property
    def is_exhausted(self) -> bool:
        """Whether stalled readers hold the whole budget: no new streams until one of them moves."""
        return self.held_bytes >= self.limit_bytes

    def take_first_window(self) -> int:
        """Return the window for a new stream; the caller gives it back with `release`."""
        committed = self.committed_bytes
        if committed < self._half:
            window = self._first
        elif committed < self._growth_limit:
            window = self._first // 2
        else:
            window = min(MIN_STREAM_WINDOW_BYTES, self._first)
        self.committed_bytes = committed + window
        return window

    def try_grow(self, more_bytes: int) -> bool:
        """Commit `more_bytes` to a window that grows, if there is room."""
        if self.committed_bytes + more_bytes > self._growth_limit or self.held_bytes > self._half:
            return False
        self.committed_bytes += more_bytes
        return True

    def release(self, window_bytes: int) -> None:
        """Give back the window of a closed stream."""
        self.committed_bytes -= window_bytes


class ReceiveWindow:
    """The receiving side of one stream's flow control.

    Args:
        budget: what all windows share; the caller has committed `size` to it.
        size: the first window.
        limit: how far the window may grow.
        is_eager: whether it grows with every grant to a reader that did not stall, and not only
            once that reader took four windows and had to wait for more.
    """

    __slots__ = (
        "_budget", "_drained", "_growth_grants", "_limit", "_monotonic", "_starved", "credit",
        "granted_at", "held", "size", "unacknowledged",
    )  # fmt: skip

    def __init__(
        self,
        budget: ReceiveBudget,
        size: int,
        *,
        limit: int = MAX_STREAM_WINDOW_BYTES,
        is_eager: bool = False,
    ) -> None:
        self._budget = budget
        self._limit = limit
        self._growth_grants = 1 if is_eager else 8
        self._monotonic = None if is_eager else budget.monotonic
        self.size = size
        """The window: how much the peer may have in flight."""
        self.credit = size
        """What the peer may still send; negative means that it broke the rule."""
        self.held = 0
        """Received while the reader was stalled."""
        self.unacknowledged = 0
        """Consumed, but not granted again yet; the stream adds to it inline."""
        self._drained = 0
        self._starved = 0
        self.granted_at = 0.0
        """When the last grant left, until the next bytes come (see `note_arrival`); 0: they came."""

    def consume(self, count: int) -> int:
        """Note that the reader took `count` bytes; return the credit to grant now (0: not yet)."""
        self.unacknowledged += count
        if self.unacknowledged * 2 < self.size:
            return 0
        grant = self.unacknowledged
        self.unacknowledged = 0
        # A reader that took four windows without a stall, and waited for more again and again, is
        # limited by the round trip: only then is a larger window worth its memory.
        monotonic = self._monotonic
        self._drained += grant
        if self._drained * 2 >= self._growth_grants * self.size and self.size < self._limit:
            may_grow = monotonic is None or self._starved >= STARVED_GRANTS
            self._drained = self._starved = 0
            if may_grow and self._budget.try_grow(self.size):
                grant += self.size
                self.size *= 2
        if monotonic is not None and self.size < self._limit:
            self.granted_at = monotonic()
        self.credit += grant
        return grant

    def note_arrival(self) -> None:
        """Note the first bytes behind a grant, while `granted_at` is set."""
        if self._monotonic is not None and self._monotonic() - self.granted_at >= STARVED_SECONDS:
            self._starved += 1
        self.granted_at = 0.0

    def hold(self, count: int) -> None:
        """Note bytes that arrived while the reader was stalled."""
        self.held += count
        self._drained = self._starved = 0
        self._budget.held_bytes += count

    def unhold(self) -> int:
        """Return the held bytes and forget them, for they were taken or the stream ended."""
        held = self.held
        if held:
            self._budget.held_bytes -= held
            self.held = 0
        return held

    def close(self) -> None:
        """Give everything back to the budget; idempotent."""
        self.unhold()
        self._budget.release(self.size)
        self.size = 0
