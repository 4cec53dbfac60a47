import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.config.values import Endpoint
from moleport_server.edge import overload as module
from moleport_server.edge.overload import BusyConnection, Overload
from moleport_server.edge.plain_listener import listen
from moleport_server.listening import bind_listener

SECONDS = 20.0


@asynccontextmanager
async def overloaded(
    make: Callable[[Overload], asyncio.Protocol] = BusyConnection,
) -> AsyncIterator[tuple[Overload, int]]:
    overload = Overload()
    server = listen(bind_listener(Endpoint("127.0.0.1", 0)), lambda _: make(overload))
    try:
        yield overload, server.port
    finally:
        overload.close()
        server.close()


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


class Listening(asyncio.Protocol):
    def __init__(self, heard: asyncio.Event) -> None:
        self.heard = heard

    def data_received(self, data: bytes) -> None:
        self.heard.set()


def test_after_a_visitor_was_dropped_the_next_connection_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On the server's own loop, whose transports leave a reader behind otherwise.
    monkeypatch.setattr(module, "MOST", 0)

    async def drop_one_and_take_the_next() -> None:
        heard = asyncio.Event()
        coming = iter([True, True, False])

        def make(overload: Overload) -> asyncio.Protocol:
            return BusyConnection(overload) if next(coming) else Listening(heard)

        async with overloaded(make) as (_, port), asyncio.timeout(SECONDS):
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            await heard.wait()
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(drop_one_and_take_the_next())
