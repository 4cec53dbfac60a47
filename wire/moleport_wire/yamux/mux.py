"""Many streams over one yamux connection: parsing, dispatch, fairness, and how many may be open.

The mux does no I/O: its port feeds it messages, gives it room to write and takes the messages that are
due. Faults of the peer are `RemoteProtocolError`; the connection ends with it, and nothing says so on
the wire but its end. A GO_AWAY is never sent: the stock client drops every running stream on it.

Places. The stock client holds at most 512 streams and ends the connection at one more; it counts a
stream until its own task has let go of it, which is later than our RST or last FIN. Its library stops at
256 streams that it has not acknowledged, and it acknowledges with the first byte of an answer. So
`open` keeps below both, queues what comes above, and gives the place of a stream that we ended to
another only when the client has answered a PING sent after it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

from moleport_wire.errors import RemoteProtocolError, StreamBusy, TransportLost
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.streams import StreamReceiver
from moleport_wire.hoody.window import ReceiveBudget, ReceiveWindow
from moleport_wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_BYTES,
    INITIAL_WINDOW_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Batch,
    GoAwayCode,
)
from moleport_wire.yamux.streams import Stream

MAX_STREAMS: Final = 256
"""Streams open at once: half of what the stock client holds, because all that were open a moment ago may
still linger there. With 400, repeated bursts of aborts now and then ended a connection of its library."""
MAX_UNACKNOWLEDGED: Final = 240
"""Streams that the peer said nothing about yet; the stock client's library stops at 256."""
MAX_WAITING: Final = 1024
"""Streams queued for a place; each may hold some 16 KiB that a visitor sent already."""
EARLY_FRAMES: Final = 32
"""So many frames do not wait for the end of the tick: under load a tick is long, and the peer would
idle until its end and then be given everything at once."""
QUANTUM_BYTES: Final = 32 * 1024
"""What one stream may send before it is another's turn."""
MAX_UNREAD_ANSWERS: Final = 64
"""Answers to PING and refusals of streams that may wait in a transport that does not drain; the stock
client pings once in ten seconds."""

_COPY_BELOW_BYTES: Final = 4096
"""Slicing small bodies out is cheaper than a view that keeps a whole message alive."""


class MuxOwner(Protocol):
    """What a mux asks of the session that owns it."""

    def goaway_received(self, code: int) -> None:
        """Close the transport: the peer has ended the connection and waits for that."""

    def stream_opened(self, stream_id: int) -> None:
        """Handle a stream of the peer: take it with `Mux.accept` or refuse it with `Mux.refuse`."""

    def stream_stalled(self, stream: Stream) -> None:
        """Note that our reader of this stream does not keep up."""

    def stream_drained(self, stream: Stream) -> None:
        """Note that it goes on."""

    def stream_blocked(self, stream: Stream) -> None:
        """Note that the peer's window stops us."""

    def stream_unblocked(self, stream: Stream) -> None:
        """Note that credit came."""


class Mux:
    """The streams of one connection, for either role.

    Args:
        owner: hears what concerns the session.
        budget: what the receive windows of this process may cost together.
        schedule: asks for one `take` at the end of this loop tick.
        write_early: asks to send `batch.take()` now, because much was collected; None to wait.
        is_client: whether this side has odd stream ids (the tunnel server) or even ones.
        max_streams: streams open at once, in either direction.
        max_unacknowledged: streams opened by us that the peer said nothing about yet.
        max_waiting: streams that may wait for a place.

    Attributes:
        room: bytes that may still be written in this tick; set by the port, which knows how much
            waits in the transport.
        ready: streams with queued bytes and credit, in turn.
        batch: what was collected for the next write.
    """

    __slots__ = (
        "_answers",
        "_blocked",
        "_body_flags",
        "_body_left",
        "_body_stream",
        "_budget",
        "_first_id",
        "_header",
        "_highest_seen",
        "_is_awake",
        "_is_over",
        "_leaving",
        "_leaving_at_ping",
        "_max_streams",
        "_max_unacknowledged",
        "_max_waiting",
        "_next_id",
        "_owner",
        "_ping",
        "_schedule",
        "_stalled",
        "_streams",
        "_unacknowledged",
        "_waiting",
        "_write_early",
        "batch",
        "ready",
        "room",
    )

    def __init__(
        self,
        owner: MuxOwner,
        budget: ReceiveBudget,
        schedule: Callable[[], None],
        write_early: Callable[[], None] | None = None,
        *,
        is_client: bool = True,
        max_streams: int = MAX_STREAMS,
        max_unacknowledged: int = MAX_UNACKNOWLEDGED,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._owner = owner
        self._budget = budget
        self._schedule = schedule
        self._write_early = write_early
        self._first_id = 1 if is_client else 2
        self._next_id = self._first_id
        self._highest_seen = 0
        self._max_streams = max_streams
        self._max_unacknowledged = max_unacknowledged
        self._max_waiting = max_waiting
        self._streams: dict[int, Stream] = {}
        self._waiting: OrderedDict[Stream, None] = OrderedDict()
        self._stalled: dict[Stream, None] = {}
        self._blocked: dict[Stream, None] = {}
        self._unacknowledged = 0
        self._leaving = 0
        self._leaving_at_ping = 0
        self._ping = 0
        self._answers = 0
        self._header = b""
        self._body_left = 0
        self._body_flags = 0
        self._body_stream: Stream | None = None
        self._is_awake = False
        self._is_over = False
        self.batch = Batch()
        self.ready: deque[Stream] = deque()
        self.room = 0

    @property
    def open_streams(self) -> int:
        """How many streams are open, those that wait for a place included."""
        return len(self._streams) + len(self._waiting)

    @property
    def waiting_streams(self) -> OrderedDict[Stream, None]:
        """Streams that wait for a place, the longest first."""
        return self._waiting

    @property
    def blocked_streams(self) -> dict[Stream, None]:
        """Streams that have bytes but no credit, the longest first."""
        return self._blocked

    @property
    def stalled_streams(self) -> dict[Stream, None]:
        """Streams whose reader stalled, the longest first."""
        return self._stalled

    @property
    def unanswered_ping(self) -> int | None:
        """The nonce of our PING that the peer has yet to answer."""
        return self._ping if self._leaving_at_ping else None

    @property
    def has_more(self) -> bool:
        """Whether queued bytes could be sent now, given room."""
        return bool(self.ready)

    # Streams

    def open(
        self,
        receiver: StreamReceiver,
        begin: Callable[[], bytes] | None = None,
    ) -> Stream:
        """Open a stream, now or as soon as there is a place.

        Args:
            receiver: who hears about it.
            begin: called once, right before SYN leaves; returns the bytes that go together with it. Never
                called if the stream ends before that: one that waits costs as little as can be.

        Raises:
            StreamBusy: as many streams wait as may wait.
            RemoteProtocolError: all ids are used; the connection has to be renewed.
            TransportLost: the connection is over.
        """
        if self._is_over:
            raise TransportLost("the data channel is gone")
        if self._next_id > MAX_STREAM_ID:
            raise RemoteProtocolError(Code.EXHAUSTED, "stream ids are used up")
        has_place = not self._waiting and self._has_place()
        if not has_place and len(self._waiting) >= self._max_waiting:
            raise StreamBusy(f"{self._max_waiting} streams wait already")
        stream = Stream(self, receiver, self._new_window(), begin)
        if has_place:
            self._start(stream)
        else:
            self._waiting[stream] = None
            self._ask_for_places()
        return stream

    def accept(self, stream_id: int, receiver: StreamReceiver) -> Stream:
        """Take a stream of the peer; only from within `MuxOwner.stream_opened`."""
        stream = Stream(self, receiver, self._new_window())
        self._promise_window(stream)
        self._streams[stream_id] = stream
        stream._accept(stream_id, 0)
        return stream

    def refuse(self, stream_id: int) -> None:
        """Refuse a stream of the peer; only from within `MuxOwner.stream_opened`."""
        self._note_answer()
        self.send_header(DATA, RST, stream_id, 0)

    def close(self, code: int, reason: str) -> None:
        """End every stream without a frame, because the connection is over; idempotent."""
        self._is_over = True
        for stream in [*self._streams.values(), *self._waiting]:
            stream._lose(code, reason)
        self.ready.clear()
        self.batch = Batch()

    def _new_window(self) -> ReceiveWindow:
        return ReceiveWindow(self._budget, 0, limit=MAX_WINDOW_BYTES, is_eager=True)

    def _promise_window(self, stream: Stream) -> None:
        """Commit what a stream may be sent; one that waits costs the others nothing."""
        # yamux promises this window to every stream, whatever the budget says now.
        self._budget.committed_bytes += INITIAL_WINDOW_BYTES
        stream.window.size = stream.window.credit = INITIAL_WINDOW_BYTES

    def _has_place(self) -> bool:
        return (
            len(self._streams) + self._leaving < self._max_streams
            and self._unacknowledged < self._max_unacknowledged
        )

    def _start(self, stream: Stream) -> None:
        stream_id = self._next_id
        self._next_id = stream_id + 2
        self._streams[stream_id] = stream
        self._promise_window(stream)
        self._unacknowledged += 1
        stream._start(stream_id)

    def _start_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._has_place() and self._next_id <= MAX_STREAM_ID:
            self._start(waiting.popitem(last=False)[0])
        self._ask_for_places()

    def _ask_for_places(self) -> None:
        """Find out by PING whether the peer has let go of the streams that we ended."""
        if self._leaving_at_ping or self._is_over or not self._leaving:
            return
        # Long before places are short, so that nobody waits for the round trip.
        if self._waiting or self._leaving * 4 >= self._max_streams:
            self._leaving_at_ping = self._leaving
            self._ping = (self._ping + 1) & 0xFFFF_FFFF
            self.send_header(PING, SYN, 0, self._ping)

    # Reading

    def receive(self, message: bytes) -> None:
        """Handle the next bytes of the peer, cut anywhere.

        Raises:
            RemoteProtocolError: the peer broke the protocol; the caller ends the connection with it.
        """
        if self._is_over:
            return
        size = len(message)
        position = 0
        view: memoryview | None = None
        unpack = HEADER.unpack_from
        while position < size:
            left = self._body_left
            if left:
                end = position + left
                end = min(end, size)
                length = end - position
                piece: Payload
                if length == size:
                    piece = message
                elif length < _COPY_BELOW_BYTES:
                    piece = message[position:end]
                else:
                    view = view or memoryview(message)
                    piece = view[position:end]
                position = end
                self._body_left = left - length
                self._receive_body(piece)
                continue
            header = self._header
            if header:
                missing = HEADER_BYTES - len(header)
                header += message[position : position + missing]
                position += missing
                if position > size:
                    self._header = header
                    return
                self._header = b""
                fields = unpack(header)
            elif size - position < HEADER_BYTES:
                self._header = message[position:]
                return
            else:
                fields = unpack(message, position)
                position += HEADER_BYTES
            version, frame_type, flags, stream_id, length = fields
            if version or frame_type > GO_AWAY:
                raise _violation(f"frame of version {version} and type {frame_type}")
            if frame_type == DATA:
                self._receive_data(flags, stream_id, length)
            elif frame_type == WINDOW_UPDATE:
                self._receive_credit(flags, stream_id, length)
            elif stream_id:
                raise _violation(f"frame of type {frame_type} on stream {stream_id}")
            elif frame_type == PING:
                self._receive_ping(flags, length)
            else:
                self._is_over = True
                self._owner.goaway_received(length)
                return

    def _receive_data(self, flags: int, stream_id: int, length: int) -> None:
        stream = self._streams.get(stream_id)
        if flags & SYN or not stream_id:
            stream = self._receive_syn(stream_id, stream, 0)
        self._body_left = length
        self._body_stream = None
        if stream is None:
            return
        if flags and self._receive_flags(flags, stream):
            return
        if not length:
            if flags & FIN:
                stream._receive_eof()
            return
        window = stream.window
        window.credit -= length
        if window.credit < 0 and not stream.has_peer_ended:
            raise _violation(f"stream {stream_id} exceeded its window")
        self._body_stream = stream
        self._body_flags = flags

    def _receive_body(self, piece: Payload) -> None:
        stream = self._body_stream
        if stream is None:
            return
        stream._receive_data(piece)
        if not self._body_left:
            self._body_stream = None
            if self._body_flags & FIN:
                stream._receive_eof()

    def _receive_credit(self, flags: int, stream_id: int, credit: int) -> None:
        stream = self._streams.get(stream_id)
        if flags & SYN or not stream_id:
            stream = self._receive_syn(stream_id, stream, credit)
            credit = 0
        if stream is None or (flags and self._receive_flags(flags, stream)):
            return
        if credit:
            stream._receive_credit(credit)
            if stream in self._blocked:
                del self._blocked[stream]
                self._owner.stream_unblocked(stream)
        if flags & FIN:
            stream._receive_eof()

    def _receive_flags(self, flags: int, stream: Stream) -> bool:
        """Handle ACK and RST; returns whether the stream is gone."""
        if flags & RST:
            stream._receive_reset()
            return True
        if flags & ACK and not stream.is_acknowledged:
            stream.is_acknowledged = True
            self._unacknowledged -= 1
            if self._waiting:
                self._start_waiting()
        return False

    def _receive_syn(self, stream_id: int, stream: Stream | None, credit: int) -> Stream | None:
        is_ours = stream_id % 2 == self._first_id % 2
        if not stream_id or is_ours or stream_id <= self._highest_seen or stream is not None:
            raise _violation(f"the peer cannot open stream {stream_id}")
        if len(self._streams) >= self._max_streams:
            raise RemoteProtocolError(GoAwayCode.INTERNAL_ERROR, "too many streams")
        self._highest_seen = stream_id
        self._owner.stream_opened(stream_id)
        stream = self._streams.get(stream_id)
        if stream is not None and credit:
            stream._receive_credit(credit)
        return stream

    def _receive_ping(self, flags: int, nonce: int) -> None:
        if flags & SYN:
            self._note_answer()
            self.send_header(PING, ACK, 0, nonce)
        elif flags & ACK and self._leaving_at_ping and nonce == self._ping:
            self._leaving -= self._leaving_at_ping
            self._leaving_at_ping = 0
            self._start_waiting()

    def _note_answer(self) -> None:
        """Count what a peer makes us send: one that never reads could fill our memory with it."""
        self._answers += 1
        if self._answers > MAX_UNREAD_ANSWERS:
            raise _violation("too many frames that ask for an answer")

    # Writing

    def send_data(self, flags: int, stream_id: int, body: Payload) -> None:
        """Queue a DATA frame for this tick's messages."""
        batch = self.batch
        batch.append(flags, stream_id, body)
        self.room -= len(body) + HEADER_BYTES
        if not self._is_awake:
            self._is_awake = True
            self._schedule()
        if batch.frames >= EARLY_FRAMES and self._write_early is not None:
            self._write_early()

    def send_header(self, frame_type: int, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame without a body."""
        self.batch.append_header(frame_type, flags, stream_id, length)
        self.room -= HEADER_BYTES
        self.wake()

    def wake(self) -> None:
        """Ask the port for a turn."""
        if not self._is_awake:
            self._is_awake = True
            self._schedule()

    def take(self, room: int) -> list[bytes]:
        """Return the messages that are due, given `room` bytes; called once per tick when awake.

        Streams that still have bytes and credit stay in `ready`; the caller comes again when there
        is room.
        """
        if room > 0:
            self._answers = 0
        self.room = room - self.batch.size
        ready = self.ready
        while ready and self.room > 0:
            ready.popleft()._take_turn(QUANTUM_BYTES)
        self._is_awake = False
        return self.batch.take()

    # Called by streams.

    def forget(self, stream: Stream, *, is_leaving: bool) -> None:
        """Drop a closed stream; `is_leaving` if the peer has yet to hear of its end."""
        if self._streams.pop(stream.id, None) is not None:
            if not stream.is_acknowledged:
                stream.is_acknowledged = True
                self._unacknowledged -= 1
            if is_leaving and stream.id % 2 == self._first_id % 2:
                self._leaving += 1
        else:
            self._waiting.pop(stream, None)
        self.note_drained(stream)
        if self._blocked.pop(stream, self) is None:
            self._owner.stream_unblocked(stream)
        if not self._is_over:
            self._start_waiting()

    def note_stalled(self, stream: Stream) -> None:
        """Remember a stream whose reader stalled, in order of the stall."""
        if stream not in self._stalled:
            self._stalled[stream] = None
            self._owner.stream_stalled(stream)

    def note_drained(self, stream: Stream) -> None:
        """Forget that it stalled."""
        if self._stalled.pop(stream, self) is None:
            self._owner.stream_drained(stream)

    def note_blocked(self, stream: Stream) -> None:
        """Remember a stream that has bytes but no credit."""
        if stream not in self._blocked:
            self._blocked[stream] = None
            self._owner.stream_blocked(stream)


def _violation(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(GoAwayCode.PROTOCOL_ERROR, reason)
