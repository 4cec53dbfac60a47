"""Visitors that come at a steady rate, whatever happens to those before them.

Each request has a connection of its own and begins when its time has come; so a tunnel that is away
for a second meets 200 requests, and each is counted: answered, how late, or failed.
"""

import asyncio
import contextlib
import time
from typing import NamedTuple

from moleport_bench.address import Address

PER_SECOND = 200
PATIENCE_SECONDS = 10.0


class Visit(NamedTuple):
    """One request."""

    began: float
    """On the clock of `time.monotonic`, like `ended`."""
    ended: float
    succeeded: bool

    @property
    def waited(self) -> float:
        """How long it took."""
        return self.ended - self.began


class SteadyVisitors:
    """Sends requests until it is told to stop.

    Args:
        address: the public side.
        per_second: the rate.
    """

    def __init__(self, address: Address, per_second: int = PER_SECOND) -> None:
        self._address = address
        self._step = 1 / per_second
        self._is_over = False
        self.visits: list[Visit] = []

    def stop(self) -> None:
        """Begin no more; `run` returns when those under way have ended."""
        self._is_over = True

    async def run(self) -> None:
        """Send requests at their times."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over:
                tasks.create_task(self._visit(due))
                due += self._step
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def last_failure(self) -> float:
        """Return when the last failed request ended; 0.0 when none failed."""
        return max((visit.ended for visit in self.visits if not visit.succeeded), default=0.0)

    async def _visit(self, due: float) -> None:
        succeeded = False
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                succeeded = await self._get()
        except (OSError, TimeoutError, EOFError):
            succeeded = False
        self.visits.append(Visit(due, time.monotonic(), succeeded))

    async def _get(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._address.port)
        try:
            writer.write(self._address.head("/", "Connection: close"))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return b" 200 " in head[:20]
