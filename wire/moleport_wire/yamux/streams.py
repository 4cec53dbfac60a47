"""One yamux stream: a bidirectional byte flow with half close, reset and credit in both directions.

The same shape as a stream of hoody-tunnel, so that the edge and the splice take either. What differs:

- A stream may have to wait before it exists for the peer (`is_waiting`); what is written meanwhile is
  queued, and a reset then leaves no trace on the wire.
- The peer's end comes as FIN, also when nobody reads there any more, and no credit follows then. A
  stream that `has_peer_ended` and is blocked for credit may wait for ever: its owner sets the deadline.
- RST has no code. Before the first byte of an answer it means that the local service refused.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from moleport_wire.errors import LocalProtocolError
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.streams import HIGH_WATER_BYTES, LOW_WATER_BYTES, StreamReceiver
from moleport_wire.hoody.window import ReceiveWindow
from moleport_wire.yamux.frames import (
    ACK,
    FIN,
    INITIAL_WINDOW_BYTES,
    MAX_BODY_BYTES,
    MAX_CREDIT,
    RST,
    SYN,
    WINDOW_UPDATE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from moleport_wire.yamux.mux import Mux

WAITING_HIGH_WATER_BYTES: Final = 16 * 1024
"""The mark for a stream that waits for its turn to exist: there may be a thousand of them."""


class Stream:
    """One stream of a mux; made by `Mux.open` or `Mux.accept`.

    Attributes:
        id: the stream id on the wire, 0 while the stream waits.
        receiver: who hears about it; may be exchanged while nothing is in flight.
        window: the receiving side's flow control.
    """

    __slots__ = (
        "_begin",
        "_eof_queued",
        "_flags",
        "_has_received",
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
        "is_acknowledged",
        "receiver",
        "window",
    )

    def __init__(
        self,
        mux: Mux,
        receiver: StreamReceiver,
        window: ReceiveWindow,
        begin: Callable[[], bytes] | None = None,
    ) -> None:
        self._mux = mux
        self.id = 0
        self.receiver = receiver
        self.window = window
        self.is_acknowledged = False
        """Whether the peer has said anything about a stream that we opened."""
        self._begin = begin
        self._flags = 0
        self._send_credit = 0
        self._pending: deque[Payload] = deque()
        self._pending_bytes = 0
        self._local_open = True
        self._remote_open = True
        self._has_received = False
        self._eof_queued = False
        self._is_writer_paused = False
        self._is_paused_by_us = False
        self._is_ready = False

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._local_open and not self._eof_queued

    @property
    def is_waiting(self) -> bool:
        """Whether it is queued until the peer can take one more stream."""
        return self.id == 0 and self._local_open

    @property
    def has_peer_ended(self) -> bool:
        """Whether the peer has ended its side, so that it may have forgotten the stream."""
        return not self._remote_open

    @property
    def is_reading_paused(self) -> bool:
        """Whether our reader has stalled."""
        return self._is_paused_by_us

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for credit, for their turn or for the stream to exist."""
        return self._pending_bytes

    def write(self, data: Payload) -> None:
        """Send bytes; never blocks, ignored after the end of our side."""
        size = len(data)
        if not self._local_open or self._eof_queued or not size:
            return
        mux = self._mux
        if (
            size <= self._send_credit
            and size <= MAX_BODY_BYTES
            and not self._pending_bytes
            and mux.room > 0
        ):
            self._send_credit -= size
            flags = self._flags
            if flags:
                self._flags = 0
            mux.send_data(flags, self.id, data)
            return
        self._pending.append(data)
        self._pending_bytes += size
        if not self._is_writer_paused and self._pending_bytes > (
            HIGH_WATER_BYTES if self.id else WAITING_HIGH_WATER_BYTES
        ):
            self._is_writer_paused = True
            self.receiver.stream_pause_writing()
        self._make_ready()

    def write_eof(self) -> None:
        """End our side behind everything written; idempotent."""
        if not self._local_open or self._eof_queued:
            return
        if self._pending_bytes or not self.id:
            self._eof_queued = True
            return
        self._send_eof()

    def reset(self, code: int = Code.CANCEL, reason: str = "") -> None:
        """Abandon both directions and tell the peer; idempotent, the receiver is not called.

        yamux has no place for code and reason; they are for callers that do not know the protocol.
        """
        del code, reason
        if not self._local_open and not self._remote_open:
            return
        if self.id:
            self._mux.send_data(self._flags | RST, self.id, b"")
        self._close(is_leaving=True)

    def withdraw(self) -> tuple[list[Payload], bool]:
        """End a stream that waits without a trace; its bytes are for another stream.

        Returns:
            What was written so far, and whether the writer was asked to pause.

        Raises:
            LocalProtocolError: it does not wait: the peer has seen it.
        """
        if not self.is_waiting:
            raise LocalProtocolError(Code.PROTOCOL_ERROR, "only a stream that waits is withdrawn")
        pieces = list(self._pending)
        was_paused = self._is_writer_paused
        self._close(is_leaving=False)
        return pieces, was_paused

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

    def _start(self, stream_id: int) -> None:
        """Open the stream at the peer: SYN rides on the first bytes."""
        self.id = stream_id
        begin, self._begin = self._begin, None
        preface = b"" if begin is None else begin()
        self._send_credit = INITIAL_WINDOW_BYTES - len(preface)
        self._mux.send_data(SYN, stream_id, preface)
        if self._pending_bytes:
            self._make_ready()
        elif self._eof_queued:
            self._eof_queued = False
            self._send_eof()

    def _accept(self, stream_id: int, extra_credit: int) -> None:
        """Take a stream of the peer: ACK rides on the first frame that we send."""
        self.id = stream_id
        self.is_acknowledged = True
        self._flags = ACK
        self._send_credit = min(INITIAL_WINDOW_BYTES + extra_credit, MAX_CREDIT)

    def _receive_data(self, data: Payload) -> None:
        if not self._remote_open:
            return
        self._has_received = True
        self.receiver.stream_data(data)
        if not self._remote_open:
            return  # reset by its receiver; it gave its window back
        window = self.window
        if self._is_paused_by_us:
            window.hold(len(data))
            self._mux.note_stalled(self)
            return
        # `ReceiveWindow.consume` without the call, for all but the frame that earns a grant.
        window.unacknowledged += len(data)
        if window.unacknowledged * 2 >= window.size:
            self._grant(0)

    def _grant(self, size: int) -> None:
        grant = self.window.consume(size)
        if grant:
            flags = self._flags
            self._flags = 0
            self._mux.send_header(WINDOW_UPDATE, flags, self.id, grant)

    def _receive_eof(self) -> None:
        if not self._remote_open:
            return
        self._remote_open = False
        if not self._local_open:
            self._mux.forget(self, is_leaving=False)
            self.window.close()
        self.receiver.stream_eof()

    def _receive_reset(self) -> None:
        # The client drops a stream whose local service it cannot reach, before any answer.
        is_refusal = not self._has_received and self._remote_open
        self._close(is_leaving=False)
        if is_refusal:
            self.receiver.stream_reset(Code.REFUSED, "the local service refused the connection")
        else:
            self.receiver.stream_reset(Code.CANCEL, "reset by the client")

    def _receive_credit(self, increment: int) -> None:
        self._send_credit = min(self._send_credit + increment, MAX_CREDIT)
        if self._pending_bytes:
            self._make_ready()

    def _lose(self, code: int, reason: str) -> None:
        """End without a frame, because the connection is gone."""
        if self._local_open or self._remote_open:
            self._close(is_leaving=False)
            self.receiver.stream_reset(code, reason)

    def _take_turn(self, quantum: int) -> None:
        """Send up to `quantum` queued bytes, then stand in line again if there are more."""
        self._is_ready = False
        mux = self._mux
        pending = self._pending
        while pending and quantum > 0:
            chunk = pending[0]
            limit = min(self._send_credit, quantum, MAX_BODY_BYTES)
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
            self._pending_bytes -= size
            quantum -= size
            flags = self._flags
            self._flags = 0
            mux.send_data(flags, self.id, chunk)
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
        if self._is_ready or not self.id:
            return
        if self._send_credit > 0:
            self._is_ready = True
            self._mux.ready.append(self)
            self._mux.wake()
        else:
            self._mux.note_blocked(self)

    def _send_eof(self) -> None:
        self._local_open = False
        flags = self._flags | FIN
        self._flags = 0
        self._mux.send_data(flags, self.id, b"")
        if not self._remote_open:
            self._mux.forget(self, is_leaving=True)
            self.window.close()

    def _close(self, *, is_leaving: bool) -> None:
        self._local_open = self._remote_open = False
        self._pending.clear()
        self._pending_bytes = 0
        self._eof_queued = False
        self._begin = None
        self._mux.forget(self, is_leaving=is_leaving)
        self.window.close()
