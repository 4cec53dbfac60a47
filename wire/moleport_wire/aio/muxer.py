"""The muxer: drives the links of one session over message transports.

Every frame of a loop tick leaves in one write per link: the first frame schedules a flush with
`call_soon`, the flush gives the link as much room as its transport has and writes what is due. When the
transport is full, the next flush waits for `resume_writing`. No task, no queue, no await.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.mux import Link, Mux

logger = logging.getLogger(__name__)

ROOM_BYTES: Final = 256 * 1024
"""What one link may have queued in its transport: the most that a small answer waits behind."""


class LinkOwner(Protocol):
    """Who is told what happens to a link."""

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        """End the session: the peer broke the protocol on this link."""

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        """Detach: the connection is gone."""


class LinkPort:
    """One link of a session together with its transport."""

    def __init__(
        self,
        mux: Mux,
        index: int,
        transport: MessageTransport,
        owner: LinkOwner,
        *,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        self._mux = mux
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._is_paused = False
        self._is_lost = False
        self.transport = transport
        self.link = Link(mux, index, self._schedule, self._write_early)
        self._room = room_bytes
        self.link.room = room_bytes
        # With any other limit the link could be full while the transport is not, and nobody would
        # tell when to go on.
        transport.limit_buffer(room_bytes)
        self.received_at = self._loop.time()
        """When the last message came (loop time)."""

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

    def pause_writing(self) -> None:
        """Stop flushing bulk until the transport has room."""
        self._is_paused = True
        self.link.room = 0

    def resume_writing(self) -> None:
        """Flush what waited."""
        self._is_paused = False
        self.link.wake()

    def flush(self) -> None:
        """Write what is due now."""
        if self._is_lost:
            return
        link = self.link
        transport = self.transport
        # Control frames and credit go out even when the transport is full: they are small, and
        # holding them back could stop the peer from draining what fills it.
        room = 0 if self._is_paused else self._room - transport.buffered_bytes
        for message in link.take(room):
            transport.send(message)
        if self._is_paused:
            link.room = 0
            return
        link.room = self._room - transport.buffered_bytes
        if link.has_more and link.room > 0:
            link.wake()

    def _write_early(self) -> None:
        """Write what was collected so far, without giving turns: that is the flush's."""
        if not self._is_lost:
            for message in self.link.batch.take():
                self.transport.send(message)

    def detach(self) -> None:
        """Forget the transport without closing it; nothing is written any more."""
        self._is_lost = True

    def _schedule(self) -> None:
        self._loop.call_soon(self.flush)
