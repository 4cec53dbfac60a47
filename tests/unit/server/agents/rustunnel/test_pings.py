"""Pings and their answers."""

import asyncio

from helpers.rustunnel_rig import rustunnel_rig
from moleport_server.agents.rustunnel.pings import MAX_UNANSWERED, Pings


async def test_each_ping_has_a_stamp_of_its_own_although_the_clock_stands() -> None:
    async with rustunnel_rig() as rig:
        sent: list[int] = []
        pings = Pings(sent.append, rig.shared)

        pings.ping()
        pings.ping()

        assert sent == [sent[0], sent[0] + 1]
        assert sent[0] == int(rig.base.clock.now() * 1000)


async def test_the_oldest_of_too_many_unanswered_pings_are_forgotten() -> None:
    async with rustunnel_rig() as rig:
        sent: list[int] = []
        pings = Pings(sent.append, rig.shared)
        for _ in range(MAX_UNANSWERED + 1):
            pings.ping()

        pings.receive_pong(sent[0])
        assert rig.rtts == []
        pings.receive_pong(sent[1])
        assert rig.rtts == [0.0]


async def test_who_asks_hears_no_when_the_answer_is_late_or_the_session_ends() -> None:
    async with rustunnel_rig() as rig:
        pings = Pings(lambda _: None, rig.shared)
        assert not await pings.ask(0.001)

        async with asyncio.TaskGroup() as group:
            asked = group.create_task(pings.ask(5.0))
            await asyncio.sleep(0)
            pings.close()

        assert asked.result() is False


async def test_an_answer_that_comes_late_means_nothing_any_more() -> None:
    async with rustunnel_rig() as rig:
        sent: list[int] = []
        pings = Pings(sent.append, rig.shared)
        assert not await pings.ask(0.001)

        pings.receive_pong(sent[0])
        pings.receive_pong(sent[0])
        pings.receive_pong(4711)

        assert len(rig.rtts) == 1
