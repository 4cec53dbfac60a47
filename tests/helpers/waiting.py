"""Waits for something that becomes true on the event loop, and no longer than a deadline."""

import asyncio
from collections.abc import Callable

DEADLINE_SECONDS = 20.0


async def until(is_true: Callable[[], object]) -> None:
    """Run the loop until the predicate holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_true():
            await asyncio.sleep(0)
