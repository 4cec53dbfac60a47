import asyncio
import logging

import pytest

from helpers.loops import on_both_loops
from moleport_wire.aio.tasks import TaskOwner

SECONDS = 20.0


@on_both_loops
async def test_leaving_ends_what_still_runs() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async with asyncio.timeout(SECONDS):
        async with TaskOwner() as owner:
            owner.start(work(), "work")
            await asyncio.sleep(0)
            assert owner.count == 1

    assert ended == ["cleaned up"]
    assert owner.count == 0


@on_both_loops
async def test_a_finished_task_is_forgotten() -> None:
    async def work() -> int:
        return 7

    async with TaskOwner() as owner:
        task = owner.start(work(), "work")
        assert task is not None
        assert await task == 7
        await asyncio.sleep(0)
        assert owner.count == 0


@on_both_loops
async def test_a_failure_is_logged_with_its_task_and_leaves_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    async with TaskOwner() as owner:
        failing = owner.start(fail(), "agent login")
        other = owner.start(asyncio.Event().wait(), "other")
        assert failing is not None
        assert other is not None
        await asyncio.wait([failing], timeout=SECONDS)
        await asyncio.sleep(0)
        assert not other.done()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "task failed"
    assert vars(record)["task"] == "agent login"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "broken"


@on_both_loops
async def test_nothing_starts_once_it_is_closed() -> None:
    async def work() -> None:
        raise AssertionError

    owner = TaskOwner()
    await owner.aclose()
    await owner.aclose()

    assert owner.start(work(), "late") is None
    assert owner.count == 0


@on_both_loops
async def test_a_cancelled_close_has_cancelled_the_tasks() -> None:
    may_end, is_cancelled = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled.set()
            await may_end.wait()

    owner = TaskOwner()
    task = owner.start(stubborn(), "stubborn")
    assert task is not None
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await owner.aclose()

    assert is_cancelled.is_set()
    may_end.set()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([task])
    assert owner.count == 0
