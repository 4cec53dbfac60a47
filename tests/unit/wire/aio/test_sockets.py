"""Sockets of aiofastnet on the event loop of the product."""

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import aiofastnet
import pytest
import uvloop

from moleport_wire.aio.sockets import settle_reading

SECONDS = 5.0

Greet = Callable[[asyncio.Transport], None]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


class Accepted(asyncio.Protocol):
    """A connection that does something at once, and keeps what it reads."""

    def __init__(self, greet: Greet) -> None:
        self.greet = greet
        self.received = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        settle_reading(self.transport)
        self.greet(self.transport)

    def data_received(self, data: bytes) -> None:
        self.received.set()


def abort(transport: asyncio.Transport) -> None:
    transport.abort()


def test_the_next_connection_hears_what_is_said_to_it_after_one_was_aborted_at_once(
    runner: asyncio.Runner,
) -> None:
    async def accept_after_a_refusal() -> None:
        loop = asyncio.get_running_loop()
        accepted = [Accepted(abort), Accepted(abort), Accepted(lambda _: None)]
        coming = iter(accepted)
        server = await aiofastnet.create_server(loop, lambda: next(coming), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        async with asyncio.timeout(SECONDS):
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*address)
                assert await reader.read() == b""
                writer.close()
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            await accepted[2].received.wait()
        writer.close()
        accepted[2].transport.abort()
        server.close()
        await server.wait_closed()

    runner.run(accept_after_a_refusal())
