"""Counters of the hot path: plain integers that the edge bumps inline.

An increment of a Prometheus counter with labels costs one to three microseconds, which is a tenth
of a whole request here. These cost a fraction of that and are turned into series only when someone
scrapes, by `traffic`. They belong to the event loop: no locks.
"""

from bisect import bisect_left
from typing import Final

from moleport_server.metrics.catalogue import CODE_CLASSES, REQUEST_SECONDS

ABORTED: Final = 0
"""The class of a request whose visitor left before an answer began."""


class Durations:
    """A histogram over the buckets of requests, as plain numbers."""

    __slots__ = ("buckets", "sum_seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(REQUEST_SECONDS) + 1)
        """Not cumulative; the last is everything above the highest bound."""
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(REQUEST_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class RequestCounters:
    """Counts finished requests by class of their status and by duration."""

    __slots__ = ("_buckets", "codes", "durations", "upstream")

    def __init__(self) -> None:
        self.codes = [0] * len(CODE_CLASSES)
        self.durations = Durations()
        self._buckets = self.durations.buckets
        self.upstream = Durations()
        """Time to the head of the answer; call its `observe`."""

    def count(self, code_class: int, duration_seconds: float) -> None:
        """Count one finished request.

        Args:
            code_class: `status // 100` of a status from 100 to 599, or `ABORTED`.
            duration_seconds: from its head to its end.
        """
        self.codes[code_class] += 1
        self._buckets[bisect_left(REQUEST_SECONDS, duration_seconds)] += 1
        self.durations.sum_seconds += duration_seconds


class ByteCounters:
    """Counts payload of one protocol; add to the attributes directly."""

    __slots__ = ("to_agent", "to_visitor")

    def __init__(self) -> None:
        self.to_agent = 0
        self.to_visitor = 0
