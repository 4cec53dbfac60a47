"""A TCP relay between agent and server that fails the way networks do.

`cut` resets every connection and lets nobody in. `stall` passes nothing on but loses nothing either,
as a link that drops packets for a while. `forget` loses everything on the connections that exist
without telling anybody, as a NAT that lost its table; new ones pass. `restore` lets things pass again.
"""

import asyncio
import socket
from types import TracebackType
from typing import Self

from moleport_wire.aio.tasks import TaskOwner

CHUNK_BYTES = 65_536


class Relay:
    """Listens on loopback and passes connections on to one port."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._links: list[_Link] = []
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._tasks = TaskOwner()
        self._server: asyncio.Server
        self.port = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.reset_all()
        await self._tasks.__aexit__(kind, error, traceback)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset what is open, refuse what comes."""
        self._is_cut = True
        self.reset_all()

    def reset_all(self) -> None:
        """Reset what is open."""
        for link in list(self._links):
            link.reset()

    def reset_newest(self) -> None:
        """Reset the connection that came last."""
        self._links[-1].reset()

    def stall(self) -> None:
        """Pass nothing on until `restore`."""
        self._passing.clear()

    def forget(self) -> None:
        """Swallow whatever comes on the connections that are open now, for ever."""
        for link in self._links:
            link.is_forgotten = True

    def restore(self) -> None:
        """Let new connections in and pass bytes on."""
        self._is_cut = False
        self._passing.set()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self._serve(reader, writer), "relay a connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, far_writer)
        self._links.append(link)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, reader, far_writer))
                both.create_task(self._pump(link, far_reader, writer))
        finally:
            link.reset()
            self._links.remove(link)

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if link.is_forgotten:
                    continue
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            # The end of one side is news for the other, unless the link forgot about both.
            if not link.is_forgotten:
                link.reset()
            return
        if not link.is_forgotten and not writer.is_closing():
            writer.write_eof()


class _Link:
    """One connection: its two sockets."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.is_forgotten = False
        self._writers = writers

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        # A linger time of zero makes the close a reset, as a crash or a firewall does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
