"""The part of the origin that nginx cannot play: takes uploads, and leaves requests unanswered.

    python -m moleport_bench.sink PORT

`PUT /upload` is read to its end and answered; `GET /never` is never answered; `GET /pending` tells how
many of those wait now. Bodies are read into one buffer and dropped, so that the sink costs little.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

BUFFER_BYTES = 1 << 20
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
_LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class Connection(asyncio.BufferedProtocol):
    """One connection of nginx; its requests come one after the other."""

    waiting: set["Connection"]

    def __init__(self, waiting: set["Connection"], buffer: memoryview) -> None:
        self.waiting = waiting
        self._buffer = buffer  # shared: what is in it is used before the next read
        self._head = b""
        self._left = 0
        self._is_chunked = False
        self._tail = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the request as gone."""
        self.waiting.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer of all connections."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        came = self._buffer[:nbytes]
        if self._left:
            self._left -= nbytes
            self._answer_if(is_over=self._left <= 0)
        elif self._is_chunked:
            self._tail = (self._tail + bytes(came[-len(_LAST_CHUNK) :]))[-len(_LAST_CHUNK) :]
            self._answer_if(is_over=self._tail == _LAST_CHUNK)
        else:
            self._take_head(bytes(came))

    def _take_head(self, came: bytes) -> None:
        head, end, body = (self._head + came).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return
        self._head = b""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/never"):
            self.waiting.add(self)
        elif path.startswith(b"/pending"):
            count = b"%d" % len(self.waiting)
            self._transport.write(_OK % (len(count), count))
        else:
            self._begin_body(head + b"\r\n", body)

    def _begin_body(self, head: bytes, body: bytes) -> None:
        length = _LENGTH.search(head)
        if length is not None:
            self._left = int(length[1]) - len(body)
            self._answer_if(is_over=self._left <= 0)
        elif _CHUNKED.search(head):
            self._is_chunked = True
            self._tail = body[-len(_LAST_CHUNK) :]
            self._answer_if(is_over=self._tail == _LAST_CHUNK)
        else:
            self._answer_if(is_over=True)

    def _answer_if(self, *, is_over: bool) -> None:
        if is_over:
            self._left, self._is_chunked, self._tail = 0, False, b""
            self._transport.write(_OK % (0, b""))


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    waiting: set[Connection] = set()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(waiting, buffer), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
