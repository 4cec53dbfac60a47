"""One stream: a bidirectional byte flow with half close, reset and credit in both directions.

States, per direction: a side is open until its EOF; a reset closes both. The stream leaves its mux
when both sides have ended or one of them was reset; later frames for its id are ignored.

The hot path is `write` with room everywhere and `_receive_data` with a reader that keeps up: both touch
a few integers and no queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import MAX_PAYLOAD_BYTES, Code, Payload
from moleport_wire.hoody.window import MAX_WINDOW, ReceiveWindow

if TYPE_CHECKING:
    from moleport_wire.hoody.mux import Link, Mux

HIGH_WATER_BYTES: Final = 128 * 1024
"""Queued bytes of one stream above which its writer is asked to pause."""
LOW_WATER_BYTES: Final = 32 * 1024
"""Queued bytes of one stream below which its writer goes on."""
SMALL_BYTES: Final = 4 * 1024
"""Up to this a stream that has nothing queued need not wait for room: a small answer is not put at the
end of a line of bulk transfers."""
SMALL_ROOM_BYTES: Final = 64 * 1024
"""What small answers of all streams may take beyond the room of a link."""


class StreamReceiver(Protocol):
    """Who hears about one stream; nothing is called after `stream_reset`.

    The names differ from those of `asyncio.Protocol`, so that one object can be both: the data path
    has no adapter between a socket and a stream.
    """

    def stream_data(self, data: Payload) -> None:
        """Take the next bytes, in order."""

    def stream_eof(self) -> None:
        """Note that the peer sends nothing more; writing is still possible."""

    def stream_reset(self, code: int, reason: str) -> None:
        """Note that the stream is gone, by the peer or with its session."""

    def stream_pause_writing(self) -> None:
        """Stop writing until `stream_resume_writing`."""

    def stream_resume_writing(self) -> None:
        """Go on writing."""


class Stream:
    """One stream of a mux; made by `Mux.open` or by a STREAM_OPEN of the peer.

    Attributes:
        id: the stream id on the wire.
        receiver: who hears about it; may be exchanged while nothing is in flight.
        link: the link that carries its frames.
    """

    __slots__ = (
        "_eof_queued",
        "_is_paused_by_us",
        "_is_ready",
        "_is_writer_paused",
        "_local_open",
        "_mux",
        "_pending",
        "_pending_bytes",
        "_remote_open",
        "_send_credit",
        "id",
        "link",
        "receiver",
        "window",
    )

    def __init__(
        self,
        mux: Mux,
        link: Link,
        stream_id: int,
        receiver: StreamReceiver,
        send_credit: int,
        window: ReceiveWindow,
    ) -> None:
        self._mux = mux
        self.link = link
        self.id = stream_id
        self.receiver = receiver
        self.window = window
        self._send_credit = send_credit
        self._pending: deque[Payload] = deque()
        self._pending_bytes = 0
        self._local_open = True
        self._remote_open = True
        self._eof_queued = False
        self._is_writer_paused = False
        self._is_paused_by_us = False
        self._is_ready = False

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._local_open and not self._eof_queued

    @property
    def is_reading_paused(self) -> bool:
        """Whether our reader has stalled."""
        return self._is_paused_by_us

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for credit or for their turn."""
        return self._pending_bytes

    def write(self, data: Payload) -> None:
        """Send bytes; never blocks, ignored after the end of our side."""
        size = len(data)
        if not self._local_open or self._eof_queued or not size:
            return
        mux = self._mux
        link = self.link
        if (
            size <= self._send_credit
            and size <= MAX_PAYLOAD_BYTES
            and size <= mux.send_credit
            and not self._pending_bytes
            and (link.room > 0 or (size <= SMALL_BYTES and link.room > -SMALL_ROOM_BYTES))
        ):
            self._send_credit -= size
            mux.send_credit -= size
            link.send(frames.DATA, self.id, data)
            return
        self._pending.append(data)
        self._pending_bytes += size
        if self._pending_bytes > HIGH_WATER_BYTES and not self._is_writer_paused:
            self._is_writer_paused = True
            self.receiver.stream_pause_writing()
        self._make_ready()

    def write_eof(self) -> None:
        """End our side behind everything written; idempotent."""
        if not self._local_open or self._eof_queued:
            return
        if self._pending_bytes:
            self._eof_queued = True
            return
        self._send_eof()

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions and tell the peer; idempotent, the receiver is not called."""
        if not self._local_open and not self._remote_open:
            return
        self.link.send(frames.RESET, self.id, int(code).to_bytes(2, "big") + reason.encode()[:1024])
        self._close()

    def pause_reading(self) -> None:
        """Grant no more credit until `resume_reading`."""
        self._is_paused_by_us = True

    def resume_reading(self) -> None:
        """Grant what was held back."""
        if not self._is_paused_by_us:
            return
        self._is_paused_by_us = False
        self._mux.note_drained(self)
        held = self.window.unhold()
        if held and self._remote_open:
            self._grant(held)

    # Called by the mux.

    def _receive_data(self, data: Payload) -> None:
        size = len(data)
        window = self.window
        if window.granted_at:
            window.note_arrival()
        window.credit -= size
        if window.credit < 0:
            self.reset(Code.FLOW_CONTROL, "stream window exceeded")
            self.receiver.stream_reset(Code.FLOW_CONTROL, "the peer exceeded the stream window")
            return
        if not self._remote_open:
            return
        self.receiver.stream_data(data)
        if not self._remote_open:
            return  # reset by its receiver; it gave its window back
        if self._is_paused_by_us:
            window.hold(size)
            self._mux.note_stalled(self)
            return
        # `ReceiveWindow.consume` without the call, for all but the frame that earns a grant.
        window.unacknowledged += size
        if window.unacknowledged * 2 >= window.size:
            self._grant(0)

    def _grant(self, size: int) -> None:
        grant = self.window.consume(size)
        if grant:
            self.link.send(frames.WINDOW, self.id, grant.to_bytes(4, "big"))

    def _receive_eof(self) -> None:
        if not self._remote_open:
            return
        self._remote_open = False
        if not self._local_open:
            self._forget()
        self.receiver.stream_eof()

    def _receive_reset(self, code: int, reason: str) -> None:
        self._close()
        self.receiver.stream_reset(code, reason)

    def _receive_credit(self, increment: int) -> None:
        self._send_credit = min(self._send_credit + increment, MAX_WINDOW)
        if self._pending_bytes:
            self._make_ready()

    def _lose(self, code: int, reason: str) -> None:
        """End without a frame, because the link or the session is gone."""
        if self._local_open or self._remote_open:
            self._close()
            self.receiver.stream_reset(code, reason)

    def _take_turn(self, quantum: int) -> None:
        """Send up to `quantum` queued bytes, then stand in line again if there are more."""
        self._is_ready = False
        mux = self._mux
        pending = self._pending
        while pending and quantum > 0:
            chunk = pending[0]
            limit = min(self._send_credit, mux.send_credit, quantum, MAX_PAYLOAD_BYTES)
            if limit <= 0:
                break
            size = len(chunk)
            if size <= limit:
                pending.popleft()
            else:
                view = memoryview(chunk)
                chunk = view[:limit]
                pending[0] = view[limit:]
                size = limit
            self._send_credit -= size
            mux.send_credit -= size
            self._pending_bytes -= size
            quantum -= size
            self.link.send(frames.DATA, self.id, chunk)
        if not pending and self._eof_queued:
            self._eof_queued = False
            self._send_eof()
        if self._is_writer_paused and self._pending_bytes < LOW_WATER_BYTES:
            self._is_writer_paused = False
            if self._local_open:
                self.receiver.stream_resume_writing()
        if self._pending:
            self._make_ready()

    def _make_ready(self) -> None:
        if self._is_ready:
            return
        if self._send_credit > 0:
            self._is_ready = True
            self.link.enqueue(self)
        else:
            self._mux.note_blocked(self)

    def _send_eof(self) -> None:
        self._local_open = False
        self.link.send(frames.EOF, self.id)
        if not self._remote_open:
            self._forget()

    def _close(self) -> None:
        self._local_open = self._remote_open = False
        self._pending.clear()
        self._pending_bytes = 0
        self._eof_queued = False
        self._forget()

    def _forget(self) -> None:
        self.window.close()
        self._mux.forget(self)
