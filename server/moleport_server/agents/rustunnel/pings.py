"""Pings of one session that wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from moleport_server.agents.rustunnel.sessions import RustunnelSessions

MAX_UNANSWERED: Final = 16
"""Of a client that ignores pings, the oldest are forgotten."""


class Pings:
    """Tells pings apart by their time stamps, which clients repeat.

    Args:
        send: writes a ping with a time stamp.
        shared: for the clock, and who hears about round trips.
    """

    def __init__(self, send: Callable[[int], None], shared: RustunnelSessions) -> None:
        self._send = send
        self._shared = shared
        self._sent: dict[int, tuple[float, asyncio.Future[bool] | None]] = {}

    def ping(self, answered: asyncio.Future[bool] | None = None) -> None:
        """Send one; `answered` gets True with its answer, False when the session ends."""
        clock = self._shared.clock
        timestamp = int(clock.now() * 1000)
        while timestamp in self._sent:
            timestamp += 1
        # Not the time of the loop: uvloop's goes by whole milliseconds.
        self._sent[timestamp] = (clock.monotonic(), answered)
        while len(self._sent) > MAX_UNANSWERED:
            del self._sent[next(iter(self._sent))]
        self._send(timestamp)

    async def ask(self, timeout_seconds: float) -> bool:
        """Ping and tell whether the answer came in time."""
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.ping(answered)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answered
        except TimeoutError:
            return False

    def receive_pong(self, timestamp: int) -> None:
        """Note an answer; one that nobody asked for means nothing."""
        sent = self._sent.pop(timestamp, None)
        if sent is None:
            return
        sent_at, answered = sent
        self._shared.rtt_seconds(self._shared.clock.monotonic() - sent_at)
        if answered is not None and not answered.done():
            answered.set_result(True)

    def close(self) -> None:
        """Tell everybody who waits that there will be no answer."""
        for _, answered in self._sent.values():
            if answered is not None and not answered.done():
                answered.set_result(False)
        self._sent.clear()
