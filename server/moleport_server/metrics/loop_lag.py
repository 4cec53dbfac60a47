"""Measures how late the event loop runs: the first thing to look at when everything is slow.

A timer that asks to be called every quarter of a second and looks how late it is. One slow callback
(a blocking call, a huge JSON) shows up as a lag of its length.
"""

import asyncio
from typing import Final

from moleport_server.metrics.instruments import ProcessMetrics

INTERVAL_SECONDS: Final = 0.25
PEAK_SECONDS: Final = 30.0
"""The worst lag is remembered for one to two of these, longer than scrapes are apart."""


class LoopLagProbe:
    """Records the lag of the running loop from `start` to `close`."""

    def __init__(
        self, metrics: ProcessMetrics, *, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._metrics = metrics
        self._interval = interval_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._peak = 0.0
        self._former_peak = 0.0
        self._peak_until = 0.0

    def start(self) -> None:
        """Begin; the owner calls `close` before the loop ends."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._peak_until = loop.time() + PEAK_SECONDS
            self._schedule(loop)

    def close(self) -> None:
        """Stop; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def record(self, lag_seconds: float, now: float) -> None:
        """Note one measurement, made at `now` on the clock of the loop."""
        if now >= self._peak_until:
            self._former_peak, self._peak = self._peak, 0.0
            self._peak_until = now + PEAK_SECONDS
        self._peak = max(self._peak, lag_seconds)
        self._metrics.loop_lag.set(lag_seconds)
        self._metrics.loop_lag_max.set(max(self._peak, self._former_peak))
        self._metrics.loop_lag_spread.observe(lag_seconds)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._timer = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.record(max(0.0, now - due), now)
        self._schedule(loop)
