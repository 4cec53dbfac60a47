"""A TCP relay between agent and server, and a cut that resets every connection while it stays up."""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536
CONNECT_SECONDS = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay:
    """Passes connections to a port on to another one, as long as the block runs.

    Args:
        port: where it listens.
        target: where connections go.
    """

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._links: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._relay, "127.0.0.1", self._port, backlog=1024
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections on both sides; new ones pass at once."""
        for writer in tuple(self._links):
            raw: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                other_reader, other_writer = await asyncio.open_connection(
                    "127.0.0.1", self._target
                )
        except (OSError, TimeoutError):
            writer.transport.abort()
            self._links.discard(writer)
            return
        self._links.add(other_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, other_writer))
                both.create_task(_copy(other_reader, writer))
        finally:
            for one in (writer, other_writer):
                one.transport.abort()
                self._links.discard(one)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
