"""The clock as an argument: wall time for people and records, monotonic time for durations."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time; tests pass a clock that they move by hand."""

    def now(self) -> float:
        """Return the wall clock as Unix seconds (UTC)."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards, for deadlines and durations."""
        ...


class SystemClock:
    """The clock of this machine."""

    now = staticmethod(time.time)  # noqa: TID251 - this is the Clock that all others take
    monotonic = staticmethod(time.monotonic)
