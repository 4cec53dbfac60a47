"""A visitor: a plain socket that sends what a test wants and reads answers by their framing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from helpers.waiting import DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, complete by its own framing."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes = b""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None


class Visitor:
    """One connection; ends when its context does."""

    def __init__(self, port: int, *, local_host: str = "127.0.0.1") -> None:
        self._port = port
        self._local_host = local_host
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(DEADLINE_SECONDS):
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._local_host, 0)
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Leave before the context ends."""
        self._writer.transport.abort()
        await self._writer.wait_closed()

    @property
    def address(self) -> str:
        host, port = self._writer.get_extra_info("sockname")
        return f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._writer.drain()

    def send_eof(self) -> None:
        with contextlib.suppress(OSError):  # the edge may have ended the connection already
            self._writer.write_eof()

    def pause_reading(self) -> None:
        """Be a visitor that does not read any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # of socket transports

    def resume_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # of socket transports

    def break_off(self) -> None:
        """Leave with a reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def head(self) -> Answer:
        """Read one head, interim ones included; the body stays unread."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            text = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = text.removesuffix("\r\n\r\n").split("\r\n")
        version, status, reason = line.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [field.split(": ", 1) for field in fields]
        return Answer(int(status), reason, [(name.lower(), value) for name, value in pairs])

    async def answer(self, method: str = "GET") -> Answer:
        """Read one final answer; a truncated one raises IncompleteReadError."""
        head = await self.head()
        body = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            if method == "HEAD" or head.status < 200 or head.status in (204, 304):
                pass
            elif head.header("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    body += await self._reader.readexactly(size)
                    assert await self._reader.readexactly(2) == b"\r\n"
                assert await self._reader.readexactly(2) == b"\r\n"
            elif (length := head.header("content-length")) is not None:
                body = await self._reader.readexactly(int(length))
            else:
                body = await self._reader.read()
        return Answer(head.status, head.reason, head.headers, body)

    async def read(self, count: int) -> bytes:
        """Read exactly so many bytes."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        """Read until the end; a reset raises ConnectionResetError."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._reader.read()
