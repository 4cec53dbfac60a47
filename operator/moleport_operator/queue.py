"""The work queue: keys that need a round, each at most once, fairly and not too fast.

Like that of client-go: a key that is added while it waits is one entry; a key that is added while a worker
has it comes back afterwards; failures wait exponentially longer, with jitter, so that thousands of keys
that failed together do not come back together. Namespaces take turns, so that one with thousands of tokens
does not starve another with one.

Bounded by the number of resources: a key is in it once. Not for threads: one event loop owns it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from moleport_operator.clock import Clock

FIRST_DELAY_SECONDS: Final = 0.5
MOST_DELAY_SECONDS: Final = 900.0
JITTER: Final = 0.3
"""A delay is this much shorter or longer, at random."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One resource."""

    plural: str
    namespace: str
    name: str


@dataclass(slots=True)
class QueueCounts:
    """What the metrics show; all only grow."""

    adds: int = 0
    retries: int = 0


class WorkQueue:
    """Hands keys to workers."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        """Make an empty queue.

        Args:
            clock: monotonic time.
            random: numbers from 0 to 1, for the jitter.
        """
        self._clock = clock
        self._random = random
        self._ready: dict[str, deque[Key]] = {}
        """By namespace, in turn; the front one is next."""
        self._since: dict[Key, float] = {}
        """When each ready key became ready."""
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        """The earliest time of each delayed key; other entries of the heap are stale."""
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._order = count()
        self._wake = asyncio.Event()
        self.counts = QueueCounts()
        self.observe_wait: Callable[[float], object] = lambda _seconds: None
        """Told how long each key waited for a worker."""
        self.observe_work: Callable[[float], object] = lambda _seconds: None
        """Told how long a worker had each key."""

    @property
    def depth(self) -> int:
        """Keys that wait for a worker now."""
        return len(self._since)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def working_seconds(self) -> list[float]:
        """Return for how long each key that a worker has is being worked on."""
        now = self._clock.monotonic()
        return [now - since for since in self._working.values()]

    def add(self, key: Key) -> None:
        """Make a key due now."""
        if key in self._working:
            self._again.add(key)
            return
        if key in self._since:
            return
        self._due.pop(key, None)
        self.counts.adds += 1
        self._since[key] = self._clock.monotonic()
        self._ready.setdefault(key.namespace, deque()).append(key)
        self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Make a key due later; an earlier time that it has already stays."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + seconds
        if key in self._since or due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._order), key))
        self._wake.set()

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Make a key that failed due later, each time about twice as late; returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.counts.retries += 1
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures, 32), MOST_DELAY_SECONDS)
        delay *= 1 + JITTER * (2 * self._random() - 1)
        delay = max(delay, at_least * (1 + JITTER * self._random()))
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Forget the failures of a key that went well, or is gone."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Return how often in a row a key has failed."""
        return self._failures.get(key, 0)

    async def take(self) -> Key:
        """Wait for the next key; the caller calls `done` with it.

        Safe to cancel: no key is lost.
        """
        while True:
            self._promote()
            if self._ready:
                return self._next()
            self._wake.clear()
            pause = self._later[0][0] - self._clock.monotonic() if self._later else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Give a key back."""
        self.observe_work(self._clock.monotonic() - self._working.pop(key))
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _promote(self) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    def _next(self) -> Key:
        namespace, keys = next(iter(self._ready.items()))
        del self._ready[namespace]
        key = keys.popleft()
        if keys:
            self._ready[namespace] = keys  # at the end: the others are next
        now = self._clock.monotonic()
        self.observe_wait(now - self._since.pop(key))
        self._working[key] = now
        if self._ready:
            self._wake.set()
        return key
