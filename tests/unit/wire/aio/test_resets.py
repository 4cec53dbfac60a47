import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import aiofastnet
import pytest
import uvloop

from moleport_wire.aio.resets import watch_for_reset

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
STEP_SECONDS = 5.0


class Client(asyncio.Protocol):
    def __init__(self, *, pauses: bool = False) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.received = b""
        self.transport: asyncio.Transport
        self._pauses = pauses

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # the loop's promise
        watch_for_reset(transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._pauses:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)


@contextlib.asynccontextmanager
async def connected(client: Client) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await aiofastnet.create_connection(loop, lambda: client, *listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            yield peer
            client.transport.abort()


def reset(peer: socket.socket, last_words: bytes) -> None:
    """Send bytes and a reset such that both are there when the loop looks next."""
    peer.send(last_words)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()


async def reset_client(client: Client, last_words: bytes) -> Exception | None:
    async with connected(client) as peer:
        reset(peer, last_words)
        async with asyncio.timeout(STEP_SECONDS):
            return await client.ended


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    return asyncio.Runner(loop_factory=factory)


@pytest.mark.parametrize("last_words", [b"", b"x", b"x" * 40_000])
def test_a_reset_is_noticed_however_many_bytes_came_with_it(
    runner: asyncio.Runner, last_words: bytes
) -> None:
    async def check() -> None:
        for _ in range(10):
            assert isinstance(await reset_client(Client(), last_words), ConnectionResetError)

    with runner:
        runner.run(check())


def test_a_reset_is_noticed_when_a_paused_reader_goes_on(runner: asyncio.Runner) -> None:
    async def check() -> None:
        client = Client(pauses=True)
        async with connected(client) as peer, asyncio.timeout(STEP_SECONDS):
            reset(peer, b"x" * 100)
            while not client.received:
                await asyncio.sleep(0)
            assert not client.ended.done()
            client.transport.resume_reading()
            assert isinstance(await client.ended, ConnectionResetError)

    with runner:
        runner.run(check())


def test_an_orderly_end_stays_one(runner: asyncio.Runner) -> None:
    async def check() -> None:
        client = Client()
        async with connected(client) as peer, asyncio.timeout(STEP_SECONDS):
            peer.send(b"bye")
            peer.close()
            assert await client.ended is None
        assert client.received == b"bye"

    with runner:
        runner.run(check())


def test_a_descriptor_that_is_used_again_is_watched_for_its_new_connection() -> None:
    async def check() -> None:
        for _ in range(50):
            assert isinstance(await reset_client(Client(), b"x"), ConnectionResetError)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())
