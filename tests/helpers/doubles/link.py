"""One WebSocket of a double, with nothing hidden: how it began and exactly how it ended.

The families' clients decide by the last bytes of a connection whether they come back, and libraries
do not tell: a Close frame, TLS's close_notify, an end of file and a reset look alike through them. So
the doubles drive the WebSocket state machine of `websockets` and TLS themselves, over plain TCP.
"""

import asyncio
import enum
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

READ_BYTES = 65_536
MAX_FRAME_BYTES = 16 * 2**20
MAX_MESSAGE_BYTES = 64 * 2**20
CONNECT_SECONDS = 20.0
"""The real clients wait as long as the system does; a test does not."""


class End(enum.StrEnum):
    """How a connection ended, as the peer of a server can tell."""

    CLOSED = "closed"
    """A Close frame, then an orderly end (close_notify and end of file) or a reset."""
    CLOSED_RAGGED = "closed-ragged"
    """A Close frame, then an end of file without close_notify."""
    NOTIFIED = "notified"
    """No Close frame; close_notify, or the end of file of a connection without TLS."""
    CUT = "cut"
    """The end of file of TCP inside TLS, with nothing said before."""
    RESET = "reset"
    """A reset with no Close frame before it."""
    FAILED = "failed"
    """This side found a violation of WebSocket."""
    ABANDONED = "abandoned"
    """This side went without waiting."""


class ConnectError(Exception):
    """No WebSocket came of it.

    `status` is that of the HTTP answer, None when there was none; the text reads as a client's log.
    """

    def __init__(
        self, text: str, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Message:
    """A whole WebSocket message."""

    is_binary: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class PingSeen:
    """A WebSocket Ping; the pong is on its way already. Some clients trip over these."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is, and what proves that it is the right one."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    server_name: str | None = None
    """The name for SNI and the Host header, if it is not `host`."""


class Link:
    """An open WebSocket; made by `open`, ended by `hang_up` or `abort`.

    One task reads. Sending never waits; `drain` does, when the peer takes nothing.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        protocol: ClientProtocol,
        target: Target,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._tls_in = ssl.MemoryBIO()
        self._tls_out = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if target.tls is not None:
            self._tls = target.tls.wrap_bio(
                self._tls_in, self._tls_out, server_hostname=target.server_name or target.host
            )
        self._messages: deque[Message | PingSeen] = deque()
        self._parts: list[Frame] = []
        self.response: Response
        self.end: End | None = None
        """How it ended, once it has."""
        self.close_code: int | None = None
        """The code of the server's Close frame; 1005 if that had none, None without the frame."""
        self.close_reason = ""

    @classmethod
    async def open(
        cls,
        target: Target,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: bool = False,
        nagle: bool = False,
    ) -> Self:
        """Connect, shake hands, and return the open WebSocket.

        Raises:
            ConnectError: TCP, TLS or the upgrade failed, or took too long.
        """
        name = target.server_name or target.host
        resource, _, query = path.partition("?")
        protocol = ClientProtocol(
            WebSocketURI(target.tls is not None, name, target.port, resource, query),
            subprotocols=[Subprotocol(each) for each in subprotocols] if subprotocols else None,
            extensions=[ClientPerMessageDeflateFactory()] if compression else None,
            max_size=(MAX_MESSAGE_BYTES, MAX_FRAME_BYTES),
        )
        writer: asyncio.StreamWriter | None = None
        link: Self | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                if nagle:
                    tcp: socket.socket = writer.get_extra_info("socket")
                    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
                link = cls(reader, writer, protocol, target)
                await link._shake_hands(headers or {})
        except (OSError, ssl.SSLError, TimeoutError, EOFError) as error:
            raise ConnectError(f"IO error: {error or type(error).__name__}") from error
        finally:
            if writer is not None and (link is None or not hasattr(link, "response")):
                writer.transport.abort()
        return link

    async def _shake_hands(self, headers: Mapping[str, str]) -> None:
        while self._tls is not None:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._tls_in.write(await self._some_bytes())
                continue
            break
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._flush()
        while not (events := self._protocol.events_received()):
            if self.end is not None:
                raise EOFError("connection closed during the handshake")
            await self._read_more()
        response = events[0]
        assert isinstance(response, Response)
        if response.status_code != 101:
            raise ConnectError(
                f"HTTP error: {response.status_code} {response.reason_phrase}",
                response.status_code,
                dict(response.headers.raw_items()),
            )
        error = self._protocol.handshake_exc
        if isinstance(error, InvalidHandshake):
            raise ConnectError(f"WebSocket protocol error: {error}", 101)
        self.response = response
        self._take(events[1:])

    async def _some_bytes(self) -> bytes:
        data = await self._reader.read(READ_BYTES)
        if not data:
            raise EOFError("connection closed during the handshake")
        return data

    @property
    def headers(self) -> Headers:
        """The header of the server's 101."""
        return self.response.headers

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    # Receiving

    async def receive(self) -> Message | PingSeen | None:
        """Return the next message, or None once the connection has ended; then `end` says how."""
        while not self._messages:
            if self.end is not None:
                return None
            await self._read_more()
            self._take(self._protocol.events_received())
        return self._messages.popleft()

    async def _read_more(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
        except ConnectionError:
            self._ended(End.RESET)
            return
        if self._tls is None:
            self._feed(data)
            if not data:
                self._ended(End.NOTIFIED)
            return
        if data:
            self._tls_in.write(data)
        else:
            self._tls_in.write_eof()
        try:
            while self.end is None:
                plain = self._tls.read(READ_BYTES)
                self._feed(plain)
                if not plain:
                    self._ended(End.NOTIFIED)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self._ended(End.NOTIFIED)
        except (ssl.SSLEOFError, ssl.SSLSyscallError):
            self._ended(End.CUT)
        except ssl.SSLError:
            self._ended(End.FAILED)

    def _feed(self, data: bytes) -> None:
        if not data:
            return
        self._protocol.receive_data(data)
        self._flush()
        # After a violation the library discards what follows and waits for the end of file.
        if self._protocol.parser_exc is not None and self._protocol.close_rcvd is None:
            self._ended(End.FAILED)

    def _ended(self, how: End) -> None:
        if self.end is not None:
            return
        if self._protocol.close_rcvd is not None:
            how = End.CLOSED_RAGGED if how is End.CUT else End.CLOSED
        self.end = how
        self._writer.transport.abort()

    def _take(self, events: Sequence[object]) -> None:
        for event in events:
            assert isinstance(event, Frame)
            match event.opcode:
                case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                    self._parts.append(event)
                    if event.fin:
                        is_binary = self._parts[0].opcode is Opcode.BINARY
                        whole = b"".join(bytes(part.data) for part in self._parts)
                        self._messages.append(Message(is_binary, whole))
                        self._parts.clear()
                case Opcode.PING:
                    self._messages.append(PingSeen())
                case Opcode.CLOSE:
                    close = self._protocol.close_rcvd
                    assert close is not None
                    self.close_code, self.close_reason = int(close.code), close.reason

    # Sending

    @property
    def is_open(self) -> bool:
        return self.end is None and self._protocol.state is State.OPEN

    def send_nowait(self, data: bytes, *, text: bool = False) -> None:
        """Put a message on its way, as a TLS record and a write of its own; dropped when closed."""
        if not self.is_open:
            return
        if text:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        self._flush()

    def ping_nowait(self, data: bytes = b"") -> None:
        """Send a WebSocket Ping."""
        if self.is_open:
            self._protocol.send_ping(data)
            self._flush()

    def raw_nowait(self, data: bytes) -> None:
        """Send bytes that need not be a WebSocket frame."""
        self._write(data)

    async def drain(self) -> None:
        """Wait until the connection takes more; returns also when it is gone."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
        if self._tls is not None:
            self._pump_tls()

    def _write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            self._pump_tls()
        elif not self._writer.is_closing():
            self._writer.write(data)

    def _pump_tls(self) -> None:
        sealed = self._tls_out.read()
        if sealed and not self._writer.is_closing():
            self._writer.write(sealed)

    # Ending

    def close_nowait(self, code: int | None = None, reason: str = "") -> None:
        """Send a Close frame and nothing else; the connection stays until the server ends it."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """Vanish: reset the connection without a Close frame and without close_notify."""
        tcp: socket.socket = self._writer.get_extra_info("socket")
        if not self._writer.is_closing():
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end = self.end or End.ABANDONED
        self._writer.transport.abort()

    def hang_up(self) -> None:
        """Drop the socket as a process does that ends: what was written goes out, then a FIN."""
        self.end = self.end or End.ABANDONED
        self._writer.close()
