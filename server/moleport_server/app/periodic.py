"""Work in the background: done every few seconds, or once at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from moleport_server.access.authentication import Authenticator
from moleport_server.errors import ServerError, StoreError
from moleport_server.registry.journal import Journal

logger = logging.getLogger(__name__)

FINAL_FLUSH_SECONDS: Final = 5.0
"""For each of the two that still have something to write; SQLite needs milliseconds."""


async def every(seconds: float, work: Callable[[], Awaitable[None] | None]) -> None:
    """Do something periodically, for ever; a failing store does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            result = work()
            if result is not None:
                await result
        except ServerError as error:
            logger.warning("periodic work failed", extra={"error": str(error)})


async def final_flush(authenticator: Authenticator, journal: Journal) -> None:
    """Write what is not written yet, before the store closes."""
    await journal.flush(FINAL_FLUSH_SECONDS)
    try:
        async with asyncio.timeout(FINAL_FLUSH_SECONDS):
            await authenticator.flush()
    except (StoreError, TimeoutError) as error:
        logger.warning("times of token use were not saved", extra={"error": str(error)})
