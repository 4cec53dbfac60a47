import asyncio
import socket

import aiofastnet

from helpers.loops import on_both_loops
from helpers.waiting import until
from moleport_wire.aio.callbacks import SocketCallbacks
from moleport_wire.aio.sockets import ReadBuffer

SECONDS = 20.0


class Owner:
    """Writes down what a transport tells it."""

    def __init__(self) -> None:
        self.buffer = ReadBuffer()
        self.heard: list[object] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # C transports are no asyncio.Transport
        self.heard.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(("lost", exc))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer.lend()

    def buffer_updated(self, nbytes: int) -> None:
        self.heard.append(self.buffer.take(nbytes))

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return False

    def peer_left(self, *, is_broken: bool) -> None:
        self.heard.append("left")

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


@on_both_loops
async def test_a_transport_talks_to_the_owner_itself() -> None:
    owner = Owner()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        async with asyncio.timeout(SECONDS):
            loop = asyncio.get_running_loop()
            await aiofastnet.create_connection(loop, lambda: SocketCallbacks(owner), sock=ours)
            owner.transport.set_write_buffer_limits(high=1024, low=512)
            theirs.send(b"hello")
            await until(lambda: b"hello" in owner.heard)
            owner.transport.write(b"x" * 4_000_000)
            assert "pause" in owner.heard
            read = 0
            while read < 4_000_000:
                read += len(await loop.sock_recv(theirs, 65_536))
            await until(lambda: "resume" in owner.heard)
            theirs.shutdown(socket.SHUT_WR)
            await until(lambda: ("lost", None) in owner.heard)

    assert owner.heard[0] == "made"
    assert owner.heard.index("eof") < owner.heard.index(("lost", None))


def test_what_the_transport_calls_is_the_owners_method() -> None:
    owner = Owner()
    callbacks = SocketCallbacks(owner)

    assert isinstance(callbacks, asyncio.BufferedProtocol)
    assert callbacks.buffer_updated.__self__ is owner  # type: ignore[attr-defined]
    assert not hasattr(callbacks, "__dict__") or not vars(callbacks)
