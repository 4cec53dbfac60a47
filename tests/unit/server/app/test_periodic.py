"""Work in the background."""

import asyncio

import pytest

from moleport_server.app.periodic import every
from moleport_server.errors import StoreFull
from moleport_wire.aio.tasks import TaskOwner


async def test_periodic_work_goes_on_after_the_store_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0
    is_enough = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            is_enough.set()
        raise StoreFull("disk full")

    async with TaskOwner() as tasks, asyncio.timeout(20):
        tasks.start(every(0.001, work), "try")
        await is_enough.wait()

    assert "periodic work failed" in caplog.text


async def test_work_that_does_not_wait_is_done_as_well() -> None:
    is_done = asyncio.Event()

    async with TaskOwner() as tasks, asyncio.timeout(20):
        tasks.start(every(0.001, is_done.set), "try")
        await is_done.wait()
