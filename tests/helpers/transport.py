"""The receiving end of message transports, and WebSocket frames made by hand."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiofastnet

from moleport_wire.aio.transport import MessageTransport
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer, server_protocol

SECONDS = 20.0
SUBPROTOCOL = "hoody-tunnel.v2"
UPGRADE_HEAD = (
    b"GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: " + SUBPROTOCOL.encode() + b"\r\n\r\n"
)


class Recorder:
    """A `MessageReceiver` that tests wait on."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.opened: asyncio.Future[MessageTransport] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[tuple[int | None, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def transport_opened(self, transport: MessageTransport) -> None:
        self.opened.set_result(transport)

    def message_received(self, message: bytes) -> None:
        self.messages.put_nowait(message)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        self.lost.set_result((close_code, reason))  # a second call would raise

    def pause_writing(self) -> None:
        self.paused.set()
        self.resumed.clear()

    def resume_writing(self) -> None:
        self.resumed.set()
        self.paused.clear()

    async def transport(self) -> MessageTransport:
        """Wait for the handshake."""
        async with asyncio.timeout(SECONDS):
            return await self.opened

    async def message(self) -> bytes:
        """Wait for a message."""
        async with asyncio.timeout(SECONDS):
            return await self.messages.get()

    async def end(self) -> tuple[int | None, str]:
        """Wait for the end."""
        async with asyncio.timeout(SECONDS):
            return await self.lost


def accepting(recorder: Recorder) -> Callable[[Upgrade], UpgradeAnswer]:
    """Return a decision that lets everybody in."""
    return lambda _: UpgradeAnswer(receiver=recorder, subprotocol=SUBPROTOCOL)


@asynccontextmanager
async def upgrading_server(
    decide: Callable[[Upgrade], UpgradeAnswer],
    *,
    handshake_seconds: float = SECONDS,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve upgrades on a loopback port, which is yielded."""
    server = await aiofastnet.create_server(  # as the listeners of the product do
        asyncio.get_running_loop(),
        lambda: server_protocol(decide, handshake_seconds=handshake_seconds),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class RawClient:
    """A WebSocket client that can say what libraries do not let one say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> "RawClient":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE_HEAD)
        async with asyncio.timeout(SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return cls(reader, writer)

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Write one masked frame (RFC 6455 section 5.2)."""
        size = len(payload)
        first = bytes([(0x80 if fin else 0) | opcode])
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 65536:
            length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
        else:
            length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
        mask = os.urandom(4)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        self.writer.write(first + length + mask + masked.to_bytes(size, "big"))

    async def receive(self) -> tuple[int, bytes]:
        """Read one short frame: opcode and payload."""
        async with asyncio.timeout(SECONDS):
            first, size = await self.reader.readexactly(2)
            return first & 0x0F, await self.reader.readexactly(size)

    async def receive_end(self) -> bytes:
        """Read until the server has closed."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    async def aclose(self) -> None:
        self.writer.close()
        async with asyncio.timeout(SECONDS):
            await self.writer.wait_closed()
