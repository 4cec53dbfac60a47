import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.config.values import Endpoint
from moleport_server.edge import overload as module
from moleport_server.edge.overload import BusyConnection, Overload
from moleport_server.edge.plain_listener import listen
from moleport_server.listening import bind_listener


@asynccontextmanager
async def overloaded() -> AsyncIterator[tuple[Overload, int]]:
    overload = Overload()
    server = await listen(
        bind_listener(Endpoint("127.0.0.1", 0)), lambda _: BusyConnection(overload)
    )
    try:
        yield overload, server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        overload.close()
        server.close()
        await server.wait_closed()


async def test_a_visitor_is_told_before_it_asks() -> None:
    async with overloaded() as (overload, port), Visitor(port) as visitor:
        reply = await visitor.answer()

        assert (reply.status, reply.header("retry-after")) == (503, "1")
        assert reply.header("connection") == "close"
        await visitor.aclose()
        await until(lambda: not overload.connections)


async def test_a_request_on_its_way_does_not_destroy_the_answer() -> None:
    async with overloaded() as (_, port), Visitor(port) as visitor:
        visitor.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
        )

        assert (await visitor.answer()).status == 503


async def test_who_stays_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    async with overloaded() as (overload, port), Visitor(port) as visitor:
        await visitor.answer()

        await until(lambda: not overload.connections)


async def test_above_the_most_visitors_are_dropped_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    async with overloaded() as (overload, port), Visitor(port) as first:
        await first.answer()
        assert len(overload.connections) == 1

        async with Visitor(port) as second:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await second.answer()
