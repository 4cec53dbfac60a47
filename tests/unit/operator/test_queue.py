import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clock import FakeClock
from moleport_operator.queue import MOST_DELAY_SECONDS, Key, WorkQueue


def key(name: str, namespace: str = "a") -> Key:
    return Key("tunneltokens", namespace, name)


async def taken(queue: WorkQueue) -> Key:
    async with asyncio.timeout(20):
        return await queue.take()


async def test_a_key_that_waits_is_one_entry() -> None:
    queue = WorkQueue(FakeClock(), lambda: 0.5)
    queue.add(key("x"))
    queue.add(key("x"))

    await taken(queue)

    assert queue.depth == 0
    assert queue.counts.adds == 1


async def test_a_key_that_is_worked_on_comes_back_afterwards_and_never_twice_at_once() -> None:
    queue = WorkQueue(FakeClock(), lambda: 0.5)
    queue.add(key("x"))
    await taken(queue)

    queue.add(key("x"))
    assert queue.depth == 0
    queue.done(key("x"))

    assert await taken(queue) == key("x")


async def test_a_delayed_key_comes_at_its_time_and_an_earlier_time_wins() -> None:
    clock = FakeClock()
    queue = WorkQueue(clock, lambda: 0.5)
    queue.add_after(key("x"), 60)
    queue.add_after(key("x"), 10)
    queue.add_after(key("x"), 30)

    clock.advance(10)

    assert await taken(queue) == key("x")
    queue.done(key("x"))
    clock.advance(100)
    queue.add(key("y"))
    assert await taken(queue) == key("y")
    assert queue.depth == queue.delayed == 0


async def test_namespaces_take_turns() -> None:
    queue = WorkQueue(FakeClock(), lambda: 0.5)
    for name in ("1", "2", "3"):
        queue.add(key(name, "big"))
    queue.add(key("1", "small"))

    order = [await taken(queue) for _ in range(4)]

    assert [each.namespace for each in order] == ["big", "small", "big", "big"]


async def test_a_waiting_worker_is_woken() -> None:
    queue = WorkQueue(FakeClock(), lambda: 0.5)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(key("x"))

    assert waiting.result() == key("x")


async def test_failures_wait_twice_as_long_each_time_until_a_success() -> None:
    queue = WorkQueue(FakeClock(), lambda: 0.5)

    delays = [queue.retry(key("x")) for _ in range(4)]
    queue.forget(key("x"))

    assert delays == [0.5, 1, 2, 4]
    assert queue.failures(key("x")) == 0
    assert queue.retry(key("x")) == 0.5


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_delay_has_jitter_and_an_end(chance: float, failures: int) -> None:
    queue = WorkQueue(FakeClock(), lambda: chance)
    for _ in range(failures):
        delay = queue.retry(key("x"))

    assert 0.35 <= delay <= MOST_DELAY_SECONDS * 1.3


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_who_says_when_to_come_back_is_heard(chance: float) -> None:
    queue = WorkQueue(FakeClock(), lambda: chance)

    assert queue.retry(key("x"), at_least=20) >= 20


async def test_work_that_takes_long_is_seen() -> None:
    clock = FakeClock()
    queue = WorkQueue(clock, lambda: 0.5)
    queue.add(key("x"))
    await taken(queue)

    clock.advance(7)

    assert queue.working_seconds() == [7]
