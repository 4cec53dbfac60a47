"""The muxer: drives the links of one session over message transports.

`LinkPort` carries one link of a hoody-tunnel session, `YamuxPort` a whole yamux connection; both write by
the same rules. Every frame of a loop tick leaves in one write per link: the first frame schedules a flush
with `call_soon`, the flush gives the link as much room as its transport has and writes what is due. When
the transport is full, the next flush waits for `resume_writing`. No task, no queue, no await.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.mux import Link, Mux
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.yamux import mux as yamux

logger = logging.getLogger(__name__)

ROOM_BYTES: Final = 256 * 1024
"""What one link may have queued in its transport: the most that a small answer waits behind."""


class Batch(Protocol):
    """What was collected for the next write."""

    def take(self) -> list[bytes]:
        """Return the messages in order and start anew."""
        ...


class Outlet(Protocol):
    """The pure side of one connection: a link of a hoody-tunnel session, or a yamux mux."""

    room: int

    @property
    def batch(self) -> Batch:
        """What was collected for the next write."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether queued bytes could be sent now, given room."""
        ...

    def wake(self) -> None:
        """Ask for a turn."""

    def take(self, room: int) -> list[bytes]:
        """Return the messages that are due, given `room` bytes."""
        ...


OutletT = TypeVar("OutletT", bound=Outlet)


class Port(Generic[OutletT]):
    """A transport and what is written to it: as much per loop tick as it takes at once.

    Args:
        transport: the open connection.
        room_bytes: what may be queued in it.
        make_outlet: makes the pure side, from what asks for a flush and what asks for an early write.
    """

    def __init__(
        self,
        transport: MessageTransport,
        room_bytes: int,
        make_outlet: Callable[[Callable[[], None], Callable[[], None]], OutletT],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_paused = False
        self._is_lost = False
        self._room = room_bytes
        self.transport = transport
        # With any other limit the link could be full while the transport is not, and nobody would
        # tell when to go on.
        transport.limit_buffer(room_bytes)
        self.received_at = self._loop.time()
        """When the last message came (loop time)."""
        self._outlet = make_outlet(self._schedule, self._write_early)
        self._outlet.room = room_bytes

    def pause_writing(self) -> None:
        """Stop flushing bulk until the transport has room."""
        self._is_paused = True
        self._outlet.room = min(0, self._room - self.transport.buffered_bytes)

    def resume_writing(self) -> None:
        """Flush what waited."""
        self._is_paused = False
        self._outlet.wake()

    def flush(self) -> None:
        """Write what is due now."""
        if self._is_lost:
            return
        outlet = self._outlet
        transport = self.transport
        # Control frames and credit go out even when the transport is full: they are small, and
        # holding them back could stop the peer from draining what fills it.
        room = 0 if self._is_paused else self._room - transport.buffered_bytes
        for message in outlet.take(room):
            transport.send(message)
        if self._is_paused:
            # Below zero it bounds what small frames may still add.
            outlet.room = min(0, self._room - transport.buffered_bytes)
            return
        outlet.room = self._room - transport.buffered_bytes
        if outlet.has_more and outlet.room > 0:
            outlet.wake()

    def detach(self) -> None:
        """Forget the transport without closing it; nothing is written any more."""
        self._is_lost = True

    def _write_early(self) -> None:
        """Write what was collected so far, without giving turns: that is the flush's."""
        if not self._is_lost:
            for message in self._outlet.batch.take():
                self.transport.send(message)

    def _schedule(self) -> None:
        self._loop.call_soon(self.flush)


class LinkOwner(Protocol):
    """Who is told what happens to a link."""

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        """End the session: the peer broke the protocol on this link."""

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        """Detach: the connection is gone."""


class LinkPort(Port[Link]):
    """One link of a hoody-tunnel session together with its transport."""

    def __init__(
        self,
        mux: Mux,
        index: int,
        transport: MessageTransport,
        owner: LinkOwner,
        *,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        super().__init__(
            transport, room_bytes, lambda schedule, early: Link(mux, index, schedule, early)
        )
        self._mux = mux
        self._owner = owner
        self.link = self._outlet

    def message_received(self, message: bytes) -> None:
        """Hand a message to the mux."""
        if self._is_lost:
            return
        self.received_at = self._loop.time()
        try:
            self._mux.receive(self.link, message)
        except RemoteProtocolError as error:
            self._owner.link_failed(self, error)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Note the end of the connection."""
        if not self._is_lost:
            self._is_lost = True
            self._owner.link_lost(self, close_code, reason)


class YamuxOwner(yamux.MuxOwner, Protocol):
    """Who is told what happens to a yamux connection."""

    def yamux_failed(self, port: YamuxPort, error: RemoteProtocolError) -> None:
        """Abort the transport and end the streams: the peer broke the protocol."""

    def yamux_lost(self, port: YamuxPort, close_code: int | None, reason: str) -> None:
        """End the streams: the connection is gone."""


class YamuxPort(Port[yamux.Mux]):
    """One yamux connection together with its transport; the owner ends the streams with `mux.close`."""

    def __init__(
        self,
        transport: MessageTransport,
        owner: YamuxOwner,
        budget: ReceiveBudget,
        *,
        is_client: bool = True,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        super().__init__(
            transport,
            room_bytes,
            lambda schedule, early: yamux.Mux(owner, budget, schedule, early, is_client=is_client),
        )
        self._owner = owner
        self.mux = self._outlet

    def message_received(self, message: bytes) -> None:
        """Hand a message to the mux."""
        if self._is_lost:
            return
        self.received_at = self._loop.time()
        try:
            self.mux.receive(message)
        except RemoteProtocolError as error:
            self._owner.yamux_failed(self, error)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Note the end of the connection."""
        if not self._is_lost:
            self._is_lost = True
            self._owner.yamux_lost(self, close_code, reason)
