"""The event log: what happened to sessions, tunnels and requests, for those who watch live.

A ring of the last events with rising ids, so that a watcher that lost its connection resumes with
`Last-Event-ID`. Publishing never waits and costs nothing while nobody watches requests: a watcher
that does not keep up loses its oldest events and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

KEPT_EVENTS: Final = 1024
"""Enough for a watcher to come back after a short drop; a few hundred KiB at most."""
WATCHER_BACKLOG: Final = 1024
"""Events that a slow watcher may lag behind before it starts to lose them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; the kind ends in a participle."""

    id: int
    kind: str
    """`session.opened`, `session.parked`, `session.resumed`, `session.closed`, `tunnel.opened`,
    `tunnel.closed`, `request.finished`."""
    at: float
    """Unix seconds."""
    token_id: str | None
    """Whose event it is; None: the admin's."""
    fields: dict[str, Any]
    """JSON-ready, without secrets."""


class Watcher:
    """One reader of the log; made by `EventLog.watch`."""

    def __init__(self, backlog: list[Event]) -> None:
        self._queue: deque[Event] = deque(backlog, maxlen=WATCHER_BACKLOG)
        self._ready = asyncio.Event()
        self.lost = 0
        if backlog:
            self._ready.set()

    def _offer(self, event: Event) -> None:
        if len(self._queue) == WATCHER_BACKLOG:
            self.lost += 1
        self._queue.append(event)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events for ever; cancellation loses nothing that was not yielded."""
        while True:
            await self._ready.wait()
            while self._queue:
                yield self._queue.popleft()
            self._ready.clear()


class EventLog:
    """Collects events and hands them to watchers."""

    def __init__(self, now: Any) -> None:
        self._now = now
        self._next_id = 1
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._watchers: set[Watcher] = set()

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches; publishers of frequent events ask first."""
        return bool(self._watchers)

    @property
    def last_id(self) -> int:
        """The id of the newest event, 0 before the first."""
        return self._next_id - 1

    def publish(self, kind: str, token_id: str | None, fields: dict[str, Any]) -> None:
        """Add an event and wake the watchers."""
        event = Event(self._next_id, kind, self._now(), token_id, fields)
        self._next_id += 1
        self._kept.append(event)
        for watcher in self._watchers:
            watcher._offer(event)  # noqa: SLF001 - the two are one mechanism

    def watch(self, after: int | None = None) -> Watcher:
        """Start watching; with `after`, events behind that id come first (as far as kept).

        The caller ends it with `unwatch`.
        """
        backlog = [] if after is None else [event for event in self._kept if event.id > after]
        watcher = Watcher(backlog)
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Stop watching; idempotent."""
        self._watchers.discard(watcher)
