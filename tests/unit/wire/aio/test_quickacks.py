"""Whether the kernel acknowledges at once, as seen by the sender's queue."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator

import aiofastnet
import pytest
import uvloop

from moleport_wire.aio.quickacks import _watches, acknowledge_at_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux")

STEP_SECONDS = 20.0
ROUNDS = 8


class Answering(asyncio.Protocol):
    """Answers each piece, which makes the kernel delay its acknowledgements."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # the loop's promise
        self._forget = acknowledge_at_once(transport) if self._at_once else lambda: None

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\n"):
            self.transport.write(b"!")

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self.lost.set()


@contextlib.asynccontextmanager
async def connected(answering: Answering) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await aiofastnet.create_connection(loop, lambda: answering, *listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            peer.setblocking(False)
            yield peer
    async with asyncio.timeout(STEP_SECONDS):
        await answering.lost.wait()


async def seconds_until_acknowledged(peer: socket.socket) -> float:
    """Send half a request and return how long it stays in the queue of its sender."""
    loop = asyncio.get_running_loop()
    peer.send(b"half of a request")
    started_at = time.monotonic()
    while struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0" * 4))[0]:
        await asyncio.sleep(0)
    seconds = time.monotonic() - started_at
    peer.send(b"the rest\n")
    await loop.sock_recv(peer, 10)
    return seconds


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    return asyncio.Runner(loop_factory=factory)


async def acknowledgements(*, at_once: bool) -> list[float]:
    """Return the seconds of some rounds, fastest first; the first rounds are quick anyway."""
    async with connected(Answering(at_once=at_once)) as peer, asyncio.timeout(STEP_SECONDS):
        rounds = [await seconds_until_acknowledged(peer) for _ in range(ROUNDS)]
    return sorted(rounds[4:])


def test_half_a_request_is_acknowledged_before_the_kernel_would(runner: asyncio.Runner) -> None:
    with runner:
        # A busy machine makes some slow.
        assert runner.run(acknowledgements(at_once=True))[0] < 0.02


def test_without_it_the_sender_waits(runner: asyncio.Runner) -> None:
    with runner:
        # After a pause the kernel is quick for a while; a busy machine makes such pauses.
        assert runner.run(acknowledgements(at_once=False))[-1] > 0.02


def test_a_lost_connection_is_forgotten(runner: asyncio.Runner) -> None:
    async def check() -> None:
        for _ in range(3):
            async with connected(Answering(at_once=True)) as peer:
                assert _watches[asyncio.get_running_loop()].count == 1
                peer.close()
        assert _watches[asyncio.get_running_loop()].count == 0

    with runner:
        runner.run(check())
