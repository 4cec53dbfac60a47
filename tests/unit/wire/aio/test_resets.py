import asyncio
import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator

import aiofastnet
import pytest
import uvloop

from helpers.waiting import until
from moleport_wire.aio.callbacks import SocketCallbacks
from moleport_wire.aio.resets import watch_for_reset, watch_while_paused

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
STEP_SECONDS = 20.0


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


class Owner:
    """Owns a socket, and reads when the test wants it to."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.left: list[bool] = []
        """What was told without reading: whether the connection was broken."""
        self.received = 0
        self.has_ended = False
        self._buffer = memoryview(bytearray(1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # the loop's promise
        watch_for_reset(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def peer_left(self, *, is_broken: bool) -> None:
        self.left.append(is_broken)
        if is_broken:
            self.transport.abort()

    def pause(self) -> None:
        self.transport.pause_reading()
        watch_while_paused(self.transport)


@contextlib.asynccontextmanager
async def connected(client: Client | Owner) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    protocol = client if isinstance(client, Client) else SocketCallbacks(client)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await aiofastnet.create_connection(loop, lambda: protocol, *listening.getsockname())
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


@pytest.mark.parametrize("last_words", [b"", b"x" * 40_000])
def test_a_reset_is_told_while_reading_is_paused(runner: asyncio.Runner, last_words: bytes) -> None:
    async def check() -> None:
        owner = Owner()
        async with connected(owner) as peer:
            await asyncio.sleep(0)  # aiofastnet starts to read behind `connection_made`
            owner.pause()
            reset(peer, last_words)
            await until(lambda: owner.has_ended)
        assert (owner.left, owner.received) == ([True], 0)

    with runner:
        runner.run(check())


def test_an_end_is_told_while_reading_is_paused_and_its_bytes_are_still_there(
    runner: asyncio.Runner,
) -> None:
    async def check() -> None:
        owner = Owner()
        async with connected(owner) as peer:
            await asyncio.sleep(0)
            owner.pause()
            peer.send(b"bye")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: owner.left)
            assert (owner.left, owner.received) == ([False], 0)
            owner.transport.resume_reading()
            await until(lambda: owner.has_ended)
            assert owner.received == 3

    with runner:
        runner.run(check())


def test_an_end_that_came_before_the_pause_is_told_too(runner: asyncio.Runner) -> None:
    async def check() -> None:
        owner = Owner()
        async with connected(owner) as peer:
            await asyncio.sleep(0)
            owner.pause()
            owner.transport.resume_reading()
            peer.shutdown(socket.SHUT_WR)
            owner.pause()
            await until(lambda: owner.left)
            owner.transport.resume_reading()
            owner.pause()
            await until(lambda: len(owner.left) == 2)

    with runner:
        runner.run(check())


def test_who_reads_is_told_nothing_but_by_reading(runner: asyncio.Runner) -> None:
    async def check() -> None:
        owner = Owner()
        async with connected(owner) as peer:
            await asyncio.sleep(0)
            owner.pause()
            owner.transport.resume_reading()
            peer.send(b"bye")
            peer.close()
            await until(lambda: owner.has_ended)
        assert (owner.left, owner.received) == ([], 3)

    with runner:
        runner.run(check())


def test_a_watch_ends_with_its_loop() -> None:
    async def check() -> weakref.ref[asyncio.AbstractEventLoop]:
        owner = Owner()
        async with connected(owner):
            await asyncio.sleep(0)
            owner.pause()
        return weakref.ref(asyncio.get_running_loop())

    with asyncio.Runner() as runner:
        loop = runner.run(check())
    del runner
    gc.collect()
    assert loop() is None
