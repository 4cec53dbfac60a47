"""The journal: writes the registry's changes to the store, in order, behind the event loop's back.

State changes are synchronous in memory; their durable side follows here. A claim waits for its write
before the agent is told, a loss or a release does not wait. A failing store never stops tunnels: the
change stays in memory, the failure is logged and counted, and the next write tries again by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from moleport_server.errors import ServerError

logger = logging.getLogger(__name__)

Write = Callable[[], Awaitable[None]]

WRITE_SECONDS: Final = 10.0
"""After this a write counts as failed; SQLite on a healthy disk needs milliseconds."""


class Journal:
    """An ordered queue of store writes with one consumer.

    The queue needs no bound of its own: each entry stems from a session or tunnel that came or went,
    and those are bounded and rate limited.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[str, Write, asyncio.Future[bool] | None]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failures = 0
        """Writes that failed since the start."""

    def post(self, what: str, write: Write) -> None:
        """Write later; `what` names it in the log if it fails."""
        self._queue.append((what, write, None))
        self._idle.clear()
        self._wake.set()

    async def write(self, what: str, write: Write) -> bool:
        """Write and wait; False when the store failed or did not answer in time.

        Cancellation is safe: the write still happens.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((what, write, done))
        self._idle.clear()
        self._wake.set()
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                return await done
        except TimeoutError:
            return False

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything is written; False when time ran out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write for ever; the application owns this task and cancels it after `flush`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                what, write, done = self._queue.popleft()
                succeeded = await self._attempt(what, write)
                if done is not None and not done.done():
                    done.set_result(succeeded)
            self._idle.set()

    async def _attempt(self, what: str, write: Write) -> bool:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await write()
        except (ServerError, TimeoutError) as error:
            self.failures += 1
            logger.warning(
                "store write failed, going on in memory",
                extra={"write": what, "error": str(error) or type(error).__name__},
            )
            return False
        except Exception:
            # The boundary of this task: a bug in one write must not end all later ones unseen.
            self.failures += 1
            logger.exception("store write broke, going on in memory", extra={"write": what})
            return False
        return True
