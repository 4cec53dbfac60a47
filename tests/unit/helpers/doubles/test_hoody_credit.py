"""The gates of a driver: strictly in turn, and closed for good."""

import asyncio

import pytest

from helpers.doubles.hoody_credit import Credits, Gate, GateClosed


async def test_who_asks_for_much_holds_up_who_asks_for_little() -> None:
    gate = Gate(10)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await gate.take(size)
        order.append(name)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(take("much", 20))
        group.create_task(take("little", 1))
        await asyncio.sleep(0)
        assert order == []
        gate.give(10)
        await asyncio.sleep(0)
        gate.give(1)

    assert (order, gate.credit) == (["much", "little"], 0)


async def test_a_cancelled_wait_lets_the_next_one_through() -> None:
    gate = Gate(1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        first = group.create_task(gate.take(2))
        group.create_task(gate.take(1))
        await asyncio.sleep(0)
        first.cancel()

    assert gate.credit == 0


async def test_a_reset_stream_gives_its_share_of_the_session_back() -> None:
    gates = Credits(100, 10)
    await gates.take(2, 10)

    async def blocked() -> None:
        with pytest.raises(GateClosed):
            await gates.take(2, 10)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(blocked())
        await asyncio.sleep(0)
        assert gates.session.credit == 80
        gates.turn_away(2)

    assert gates.session.credit == 90


async def test_credit_of_a_stream_that_sent_nothing_yet_is_lost() -> None:
    gates = Credits(100, 10)

    gates.give(2, 50)
    await gates.take(2, 10)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await gates.take(2, 1)
