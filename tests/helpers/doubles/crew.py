"""Tasks that end together with the block they belong to."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class Crew:
    """A task group whose tasks are cancelled, not awaited, when the block ends."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self.cancel()
        await self._group.__aexit__(*exception)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the block."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Stop all that runs."""
        for task in self._tasks:
            task.cancel()
