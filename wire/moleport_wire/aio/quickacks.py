"""Acknowledge at once what peers with Nagle's algorithm send.

Stock rustunnel clients leave Nagle on and write the head and the body of an answer separately: the body
waits in their kernel until the head was acknowledged, and ours delays that acknowledgement for up to
40 ms in the hope of sending it along with data. TCP_QUICKACK ends the delay, but the kernel takes the
option back by itself, so it has to be set after each arrival of bytes. Arrivals, not messages: half a TLS
record or WebSocket frame is no event for those who parse it, and still somebody waits for its
acknowledgement. So the descriptors are watched by an epoll of our own that reports each arrival once; and
since the kernel heeds the option only when all bytes were read, it is set behind the readers of the turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

MAX_ARRIVALS: Final = 256
"""Connections acknowledged per turn of the loop; the others wake us again at once."""
_ARRIVALS: Final = (
    select.EPOLLIN | select.EPOLLOUT | select.EPOLLET if sys.platform == "linux" else 0
)
# Bytes wake the watch, but it tells only what still holds when it is asked, and the reader may have
# taken them by then. That the connection is writable holds nearly always.


class QuickAcks:
    """The connections of one event loop that are acknowledged at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        loop.add_reader(self._epoll.fileno(), self._on_arrivals)

    @property
    def count(self) -> int:
        """Connections that are watched."""
        return len(self._sockets)

    def add(self, descriptor: int, sock: socket.socket) -> None:
        """Watch a connection until `remove`."""
        self._sockets[descriptor] = sock
        try:
            self._epoll.register(descriptor, _ARRIVALS)
        except FileExistsError:
            self._epoll.modify(descriptor, _ARRIVALS)

    def remove(self, descriptor: int, sock: socket.socket) -> None:
        """Forget a connection, whether it is closed already or not; idempotent."""
        if self._sockets.get(descriptor) is sock:
            del self._sockets[descriptor]
            with contextlib.suppress(OSError):  # closed: the kernel has forgotten it by itself
                self._epoll.unregister(descriptor)

    def _on_arrivals(self) -> None:
        self._loop.call_soon(self._acknowledge, self._epoll.poll(0, MAX_ARRIVALS))

    def _acknowledge(self, arrivals: list[tuple[int, int]]) -> None:
        sockets = self._sockets
        for descriptor, _ in arrivals:
            sock = sockets.get(descriptor)
            if sock is not None:
                with contextlib.suppress(OSError):  # reset by the peer: its protocol is told
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


# One per loop, because descriptors belong to loops; transports come without anybody who could pass it.
_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, QuickAcks] = WeakKeyDictionary()


def acknowledge_at_once(transport: asyncio.BaseTransport) -> Callable[[], None]:
    """Acknowledge whatever this connection receives; call the result when it is lost.

    Does nothing where the kernel has no such option.
    """
    sock = transport.get_extra_info("socket")
    is_tcp = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
    if sys.platform != "linux" or not is_tcp or sock.fileno() < 0:
        return _nothing
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = QuickAcks(loop)
    descriptor: int = sock.fileno()
    watch.add(descriptor, sock)
    return partial(watch.remove, descriptor, sock)


def _nothing() -> None:
    """Forget nothing."""
