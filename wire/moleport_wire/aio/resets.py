"""Notice every reset: on uvloop a transport of aiofastnet can miss one.

When bytes and a reset come together, libuv reports an error once and stops to watch the descriptor (its
`uv__poll_io`); uvloop runs the reader, which takes the bytes, is content, and is never called again. The
connection then looks alive until a timeout: a crashed agent, a service that is gone, a visitor who
left (seen with uvloop 0.23 and aiofastnet 1.2). So each descriptor is watched a second time, for errors
only, by an epoll of our own that costs nothing while there are none; one with an error is read to its end.
"""

from __future__ import annotations

import asyncio
import select
import sys
from typing import Final, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

AGAIN_SECONDS: Final = 0.02
"""Pause between two reads of a broken connection, whose receive buffer may hold some more bytes, and
whose reader may be paused."""


class ResetWatch:
    """Watches the connections of one event loop for errors."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._transports: WeakValueDictionary[int, asyncio.Transport] = WeakValueDictionary()
        loop.add_reader(self._epoll.fileno(), self._on_errors)

    def add(self, descriptor: int, transport: asyncio.Transport) -> None:
        """Watch a connection until its descriptor is closed; the kernel forgets it by itself."""
        self._transports[descriptor] = transport
        # No event is asked for, since errors are always told; told once, because an error stays.
        try:
            self._epoll.register(descriptor, select.EPOLLET)
        except FileExistsError:
            self._epoll.modify(descriptor, select.EPOLLET)

    def _on_errors(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            transport = self._transports.get(descriptor)
            if transport is not None and events & select.EPOLLERR:
                self._read_on(transport)

    def _read_on(self, transport: asyncio.Transport) -> None:
        """Start the reader anew until it has met the error, which closes the transport."""
        if transport.is_closing():
            return
        if transport.is_reading():
            transport.pause_reading()
            transport.resume_reading()
        self._loop.call_later(AGAIN_SECONDS, self._read_on, transport)


# One per loop, because descriptors belong to loops; transports come without anybody who could pass it.
_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, ResetWatch] = WeakKeyDictionary()


def watch_for_reset(transport: asyncio.BaseTransport) -> None:
    """Make sure that a reset of this connection is noticed; call it once it is connected."""
    loop = asyncio.get_running_loop()
    if sys.platform != "linux" or not type(loop).__module__.startswith("uvloop"):
        return
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = ResetWatch(loop)
    # The loop's promise for stream sockets; C transports do not inherit from asyncio.Transport.
    watch.add(sock.fileno(), cast("asyncio.Transport", transport))
