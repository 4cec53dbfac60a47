"""Sockets of aiofastnet on the event loop of the product."""

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import aiofastnet
import pytest
import trustme
import uvloop

from helpers.loops import on_both_loops
from moleport_wire.aio.socket_options import NOTSENT_LOWAT_BYTES, tune_socket
from moleport_wire.aio.sockets import (
    ReadBuffer,
    abort_with_reset,
    format_peer,
    half_close,
    resume_reading,
    settle_reading,
)

SECONDS = 20.0

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


@pytest.mark.parametrize(
    ("peername", "text"),
    [
        pytest.param(("192.0.2.1", 5), "192.0.2.1:5", id="IPv4"),
        pytest.param(("2001:db8::1", 5, 0, 0), "[2001:db8::1]:5", id="IPv6"),
        pytest.param("/run/app.sock", "", id="unix socket"),
        pytest.param("", "", id="nameless unix socket"),
        pytest.param(None, "", id="no peer"),
    ],
)
def test_a_peer_is_named_as_people_write_it(peername: object, text: str) -> None:
    assert format_peer(peername) == text


class Idle(asyncio.Protocol):
    """A connection that hears its end."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


Connected = tuple[asyncio.Transport, Idle, asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected() -> AsyncIterator[Connected]:
    """A connection of aiofastnet and the far end of it."""
    far: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
        asyncio.get_running_loop().create_future()
    )
    server = await asyncio.start_server(lambda *ends: far.set_result(ends), "127.0.0.1", 0)
    async with asyncio.timeout(SECONDS):
        transport, idle = await aiofastnet.create_connection(
            asyncio.get_running_loop(), Idle, *server.sockets[0].getsockname()
        )
        reader, writer = await far
    try:
        yield transport, idle, reader, writer
    finally:
        transport.abort()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        server.close()


@on_both_loops
async def test_a_tuned_socket_sends_at_once_and_queues_little() -> None:
    async with connected() as (transport, *_):
        tune_socket(transport)

        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if sys.platform == "linux":
            assert sock.getsockopt(socket.IPPROTO_TCP, 25) == NOTSENT_LOWAT_BYTES


@on_both_loops
async def test_a_unix_socket_is_left_as_it_is(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    transport, idle = await asyncio.get_running_loop().create_unix_connection(Idle, path)

    tune_socket(transport)
    abort_with_reset(transport)

    async with asyncio.timeout(SECONDS):
        assert await idle.lost is None
    server.close()


@on_both_loops
async def test_an_aborted_connection_is_an_error_for_its_peer() -> None:
    async with connected() as (transport, idle, reader, _):
        transport.write(b"half of it")
        abort_with_reset(transport)

        async with asyncio.timeout(SECONDS):
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await idle.lost


@on_both_loops
async def test_half_of_a_connection_can_be_closed_once() -> None:
    async with connected() as (transport, idle, reader, _):
        transport.write(b"all of it")
        assert half_close(transport)

        async with asyncio.timeout(SECONDS):
            assert await reader.read() == b"all of it"
        assert not idle.lost.done()
        transport.abort()
        assert not half_close(transport)


def test_what_was_read_is_copied_before_the_next_read() -> None:
    buffer = ReadBuffer()
    buffer.lend()[:5] = b"first"
    first = buffer.take(5)
    buffer.lend()[:5] = b"other"

    assert first == b"first"
    assert buffer.take(5) == b"other"


class Pausing(asyncio.BufferedProtocol):
    """Takes 4 KiB, pauses, and takes the rest when it is told to."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = 0
        self._buffer = bytearray(4096)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.received:
            self.transport.pause_reading()
        self.received += nbytes


@on_both_loops
async def test_what_tls_had_read_before_a_pause_is_told_when_reading_goes_on() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    pausing = Pausing()
    server = await aiofastnet.create_server(
        asyncio.get_running_loop(), lambda: pausing, "127.0.0.1", 0, ssl=context
    )
    async with asyncio.timeout(SECONDS):
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=trusting, server_hostname="localhost"
        )
        writer.write(b"x" * 40_000)
        while not pausing.received:
            await asyncio.sleep(0)
        resume_reading(pausing.transport)
        while pausing.received < 40_000:
            await asyncio.sleep(0.001)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    pausing.transport.abort()
    server.close()
