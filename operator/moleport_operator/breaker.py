"""A circuit breaker before the tunnel server: when it is down, one probe asks, not every token.

Closed, calls pass. After some failures in a row it opens and calls fail at once. While it is open, whoever
owns it probes at growing intervals; the first success closes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from moleport_operator.clock import Clock
from moleport_operator.errors import ServerUnavailable

FAILURES_TO_OPEN: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
MOST_PAUSE_SECONDS: Final = 10.0
"""Between two probes: recovery within 30 s has to include the tokens' own rounds."""


class Breaker:
    """Counts failures in a row."""

    def __init__(self, clock: Clock, when_closed: Callable[[], None] = lambda: None) -> None:
        """Make a closed breaker.

        Args:
            clock: monotonic time.
            when_closed: called each time that an open breaker closes.
        """
        self._clock = clock
        self.when_closed = when_closed
        self._failures = 0
        self._opened_at: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._reason = ""
        self._opened = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._opened_at is not None

    @property
    def reason(self) -> str:
        """The last failure."""
        return self._reason

    @property
    def open_seconds(self) -> float:
        """For how long it has been open; 0 when it is closed."""
        return 0.0 if self._opened_at is None else self._clock.monotonic() - self._opened_at

    def check(self) -> None:
        """Let a call pass.

        Raises:
            ServerUnavailable: the breaker is open; the text has the failure that opened it.
        """
        if self.is_open:
            raise ServerUnavailable(self._reason)

    def succeeded(self) -> None:
        """Note an answer of the server, whatever it said."""
        was_open = self.is_open
        self._failures, self._opened_at, self._pause = 0, None, FIRST_PAUSE_SECONDS
        self._opened.clear()
        if was_open:
            self.when_closed()

    def failed(self, reason: str) -> None:
        """Note that there was no answer."""
        self._failures += 1
        self._reason = reason
        if self._failures >= FAILURES_TO_OPEN and not self.is_open:
            self._opened_at = self._clock.monotonic()
            self._opened.set()

    async def wait_open(self) -> None:
        """Wait until it opens; without a deadline, since it may never."""
        await self._opened.wait()

    def next_pause(self) -> float:
        """Return the seconds before the next probe, each time more."""
        pause = self._pause
        self._pause = min(self._pause * 2, MOST_PAUSE_SECONDS)
        return pause
