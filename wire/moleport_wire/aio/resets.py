"""Notice every peer that left, also where its transport does not.

On uvloop a transport of aiofastnet can miss a reset: when bytes come with it, libuv reports the error once
and stops to watch the descriptor (its `uv__poll_io`); uvloop runs the reader, which takes the bytes, is
content, and is never called again. The connection then looks alive until a timeout: a crashed agent, a
service that is gone, a visitor who left (seen with uvloop 0.23 and aiofastnet 1.2). So each descriptor is
watched a second time, for errors only, by an epoll of our own that costs nothing while there are none; one
with an error is read to its end.

And whoever reads nothing, because there is no room for what it would read, does not meet the end of the
connection either: a visitor could leave in the middle of an upload, and its service would never hear of
it. `watch_while_paused` asks the kernel for the end alone, and tells the owner of the socket.
"""

from __future__ import annotations

import asyncio
import select
import sys
from typing import Final, cast
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from moleport_wire.aio.callbacks import SocketCallbacks

YOUNG_SECONDS: Final = 0.1
"""Watched is what lasts longer: a connection for one request is over before, and not worth it. A reset
that uvloop misses meanwhile is told after this time."""
AGAIN_SECONDS: Final = 0.02
"""Pause between two reads of a broken connection, whose receive buffer may hold some more bytes, and
whose reader may be paused."""


class ResetWatch:
    """Watches the connections of one event loop for errors, and paused ones for their end."""

    # Nothing here holds the loop, which would keep it, and with it this watch, for ever.
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._transports: WeakValueDictionary[int, asyncio.Transport] = WeakValueDictionary()
        self._young: list[ref[asyncio.BaseTransport]] = []
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def add_later(self, loop: asyncio.AbstractEventLoop, transport: asyncio.BaseTransport) -> None:
        """Watch a connection if it lasts."""
        if not self._young:
            loop.call_later(YOUNG_SECONDS, self._add_young)
        self._young.append(ref(transport))

    def _add_young(self) -> None:
        young, self._young = self._young, []
        for reference in young:
            transport = reference()
            if transport is not None and not transport.is_closing():
                self._add(transport, 0, again=False)

    def add(self, transport: asyncio.BaseTransport, events: int) -> None:
        """Watch a connection until its descriptor is closed; the kernel forgets it by itself.

        Errors are told in any case, `events` besides, and each once, since it stays; but asking again
        tells again what is there already.
        """
        self._add(transport, events, again=True)

    def _add(self, transport: asyncio.BaseTransport, events: int, *, again: bool) -> None:
        sock = transport.get_extra_info("socket")
        if sock is None or (descriptor := sock.fileno()) < 0:
            return
        # The loop's promise for stream sockets; C transports do not inherit from asyncio.Transport.
        self._transports[descriptor] = cast("asyncio.Transport", transport)
        try:
            self._epoll.register(descriptor, events | select.EPOLLET)
        except FileExistsError:
            # One that was paused while it was young is watched already, and for more than errors.
            if again:
                self._epoll.modify(descriptor, events | select.EPOLLET)

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            transport = self._transports.get(descriptor)
            if transport is None:
                continue
            if events & select.EPOLLERR:
                self._read_on(transport)
            elif events & select.EPOLLRDHUP:
                _tell(transport, is_broken=False)

    def _read_on(self, transport: asyncio.Transport) -> None:
        """Start the reader anew until it has met the error, which closes the transport."""
        _tell(transport, is_broken=True)
        if transport.is_closing():
            return
        if transport.is_reading():
            transport.pause_reading()
            transport.resume_reading()
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._read_on, transport)


def _tell(transport: asyncio.Transport, *, is_broken: bool) -> None:
    """Tell the owner of a paused connection; one that reads will see for itself, behind the bytes."""
    if transport.is_closing() or transport.is_reading():
        return
    protocol = transport.get_protocol()
    if isinstance(protocol, SocketCallbacks):
        protocol.owner.peer_left(is_broken=is_broken)


# One per loop, because descriptors belong to loops; transports come without anybody who could pass it.
_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, ResetWatch] = WeakKeyDictionary()


def watch_for_reset(transport: asyncio.BaseTransport) -> None:
    """Make sure that a reset of this connection is noticed; call it once it is connected."""
    loop = asyncio.get_running_loop()
    if sys.platform == "linux" and type(loop).__module__.startswith("uvloop"):
        _watch_of(loop).add_later(loop, transport)


def watch_while_paused(transport: asyncio.BaseTransport) -> None:
    """Have `SocketOwner.peer_left` called if the peer leaves; call it after each `pause_reading`."""
    if sys.platform == "linux":
        _watch_of(asyncio.get_running_loop()).add(transport, select.EPOLLRDHUP)


def _watch_of(loop: asyncio.AbstractEventLoop) -> ResetWatch:
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = ResetWatch(loop)
    return watch
