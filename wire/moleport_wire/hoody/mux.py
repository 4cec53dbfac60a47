"""Many streams over the links of one session: dispatch, fairness, session credit.

A link is one ordered connection; v1 sessions have one, v2 sessions up to sixteen. Stream ids and the
session window belong to the session, a stream's frames to the link that opened it. The mux does no
I/O: the muxer feeds it messages, gives each link room to write and takes the messages that are due.

Fairness: bytes with room everywhere go out at once; all others wait in their stream and are sent
round robin, a quantum at a time, so that a bulk transfer costs its neighbours at most one quantum.

Control frames (everything but stream frames) are handed to the session that owns the mux.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import HEADER_BYTES, Code, MessageBatch, Payload
from moleport_wire.hoody.streams import Stream, StreamReceiver
from moleport_wire.hoody.window import (
    MAX_WINDOW,
    SESSION_GRANT_BYTES,
    ReceiveBudget,
    ReceiveWindow,
)

EARLY_FRAMES: Final = 32
"""So many frames do not wait for the end of the tick: under load a tick is long, and the peer would
idle until its end and then be given everything at once."""
QUANTUM_BYTES: Final = 64 * 1024
"""What one stream may send before it is another's turn: one full frame, since more frames cost the
receiver more."""
MAX_STREAM_ID: Final = 2**32 - 1
_NONE_READY: Final[deque[Stream]] = deque(maxlen=0)
"""Of all links on which no stream had to wait yet: an empty deque takes 760 bytes, and most agents idle."""
_STREAM_TYPES: Final = frozenset({frames.EOF, frames.RESET, frames.STREAM_RESPONSE_HEAD})
"""Frames that belong to one stream, besides STREAM_OPEN, DATA and WINDOW."""


class MuxOwner(Protocol):
    """What a mux asks of the session that owns it."""

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None:
        """Handle a control frame of the session (stream id 0).

        Raises:
            RemoteProtocolError: the frame is malformed or not legal now; the session ends.
        """

    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None:
        """Handle STREAM_OPEN: accept with `Mux.accept` or refuse with `Mux.refuse`."""

    def stream_stalled(self, stream: Stream) -> None:
        """Note that our reader of this stream does not keep up."""

    def stream_drained(self, stream: Stream) -> None:
        """Note that it goes on."""

    def stream_blocked(self, stream: Stream) -> None:
        """Note that the peer's window stops us."""

    def stream_unblocked(self, stream: Stream) -> None:
        """Note that credit came."""


class Link:
    """One connection of the session, seen from the mux.

    Attributes:
        room: bytes that may still be written in this tick; set by the muxer, which knows how much
            waits in the transport.
        ready: streams with queued bytes and credit, in turn.
        highest_seen: the last id that the peer opened on this link.
    """

    __slots__ = (
        "_is_awake",
        "_mux",
        "_schedule",
        "_write_early",
        "batch",
        "highest_seen",
        "index",
        "ready",
        "room",
    )

    def __init__(
        self,
        mux: Mux,
        index: int,
        schedule: Callable[[], None],
        write_early: Callable[[], None] | None = None,
    ) -> None:
        self._mux = mux
        self._write_early = write_early
        self.index = index
        self.batch = MessageBatch()
        self.ready = _NONE_READY
        self.room = 0
        self.highest_seen = 0
        self._is_awake = False
        self._schedule = schedule

    @property
    def has_more(self) -> bool:
        """Whether queued bytes could be sent now, given room."""
        return bool(self.ready) and self._mux.send_credit > 0

    def send(self, frame_type: int, stream_id: int, payload: Payload = b"") -> None:
        """Queue a frame for this tick's messages."""
        self.batch.append(frame_type, stream_id, payload)
        self.room -= len(payload) + HEADER_BYTES
        if not self._is_awake:
            self._is_awake = True
            self._schedule()
        if self.batch.frames >= EARLY_FRAMES and self._write_early is not None:
            self._write_early()

    def enqueue(self, stream: Stream) -> None:
        """Let a stream stand in line, and ask the muxer for a turn."""
        if self.ready is _NONE_READY:
            self.ready = deque()
        self.ready.append(stream)
        self.wake()

    def wake(self) -> None:
        """Ask the muxer for a turn."""
        if not self._is_awake:
            self._is_awake = True
            self._schedule()

    def take(self, room: int) -> list[bytes]:
        """Return the messages that are due, given `room` bytes; called once per tick when awake.

        Streams that still have bytes and credit stay in `ready`; the caller comes again when there
        is room.
        """
        self.room = room - self.batch.size
        ready = self.ready
        while ready and self.room > 0 and self._mux.send_credit > 0:
            ready.popleft()._take_turn(QUANTUM_BYTES)
        self._is_awake = False
        return self.batch.take()


class Mux:
    """The streams of one session, for either role.

    Args:
        owner: gets control frames and STREAM_OPEN.
        budget: what the receive windows of this process may cost together.
        stream_window: the peer's first window per stream, unless STREAM_OPEN says otherwise.
        session_window: the first session window, both ways.
        opens: whether this side opens streams (the kit does, the driver never).
    """

    def __init__(
        self,
        owner: MuxOwner,
        budget: ReceiveBudget,
        *,
        stream_window: int,
        session_window: int,
        opens: bool,
    ) -> None:
        self._owner = owner
        self._budget = budget
        self._opens = opens
        self._next_id = 2
        self._highest_seen = 0
        self._streams: dict[int, Stream] = {}
        self._stalled: dict[Stream, None] = {}
        self._blocked: dict[Stream, None] = {}
        self.stream_window = stream_window
        self.session_window = session_window
        self.send_credit = session_window
        self._receive_credit = session_window
        self._unacknowledged = 0
        self.links: list[Link] = []
        """Attached links; the first is the primary."""

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def stalled_streams(self) -> dict[Stream, None]:
        """Streams whose reader stalled, the longest first."""
        return self._stalled

    def attach(self, link: Link) -> None:
        """Add a link; the first one is the primary."""
        self.links.append(link)

    def detach(self, link: Link, reason: str) -> None:
        """Remove a lost link and end its streams."""
        if link in self.links:
            self.links.remove(link)
        for stream in [s for s in self._streams.values() if s.link is link]:
            stream._lose(Code.STREAM_CLOSED, reason)
        link.ready.clear()

    def close(self, code: int, reason: str) -> None:
        """End every stream without a frame, because the session is over; idempotent."""
        for stream in list(self._streams.values()):
            stream._lose(code, reason)
        self.links.clear()

    def open(self, link: Link, receiver: StreamReceiver, payload: Callable[[int], bytes]) -> Stream:
        """Open a stream on a link.

        Args:
            link: the connection that carries it.
            receiver: who hears about it.
            payload: makes the STREAM_OPEN payload from the window that the peer may use.

        Raises:
            RemoteProtocolError: all 2**32 ids are used; the session has to be renewed.
        """
        stream_id = self._next_id
        if stream_id > MAX_STREAM_ID:
            raise RemoteProtocolError(Code.EXHAUSTED, "stream ids are used up")
        self._next_id = stream_id + 1
        self._highest_seen = stream_id
        size = self._budget.take_first_window()
        stream = Stream(
            self, link, stream_id, receiver, self.stream_window, ReceiveWindow(self._budget, size)
        )
        self._streams[stream_id] = stream
        link.send(frames.STREAM_OPEN, stream_id, payload(size))
        return stream

    def accept(
        self, link: Link, stream_id: int, receiver: StreamReceiver, send_credit: int
    ) -> Stream:
        """Accept a stream that the peer opened; it may send `stream_window` bytes at first."""
        # The peer was promised this window in HELLO_OK, whatever the budget says now.
        self._budget.committed_bytes += self.stream_window
        window = ReceiveWindow(self._budget, self.stream_window)
        stream = Stream(self, link, stream_id, receiver, send_credit, window)
        self._streams[stream_id] = stream
        return stream

    def refuse(self, link: Link, stream_id: int, code: int, reason: str) -> None:
        """Refuse a stream that the peer opened."""
        link.send(frames.RESET, stream_id, int(code).to_bytes(2, "big") + reason.encode()[:1024])

    def receive(self, link: Link, message: bytes) -> None:
        """Handle one message of the peer.

        Raises:
            RemoteProtocolError: the peer broke the protocol; the caller ends the session with it.
        """
        streams = self._streams
        for frame_type, stream_id, payload in frames.parse(message):
            if frame_type == frames.DATA:
                self._note_received(len(payload))
                stream = streams.get(stream_id)
                if stream is not None:
                    stream._receive_data(payload)
                else:
                    self._check_known(stream_id)
            elif stream_id == 0 and frame_type != frames.STREAM_OPEN:
                if frame_type == frames.WINDOW:
                    self._receive_session_credit(payload)
                elif frame_type in _STREAM_TYPES:
                    raise RemoteProtocolError(Code.PROTOCOL_ERROR, "stream frame on stream 0")
                else:
                    self._owner.control_received(link, frame_type, payload)
            else:
                self._receive_stream_frame(link, frame_type, stream_id, payload)

    def _receive_stream_frame(
        self, link: Link, frame_type: int, stream_id: int, payload: Payload
    ) -> None:
        if frame_type == frames.STREAM_OPEN:
            # Ids rise on each link; between links there is no order, so a lower id may come later.
            is_new = stream_id > link.highest_seen and stream_id not in self._streams
            if self._opens or not is_new:
                raise RemoteProtocolError(Code.PROTOCOL_ERROR, f"STREAM_OPEN of id {stream_id}")
            link.highest_seen = stream_id
            self._highest_seen = max(self._highest_seen, stream_id)
            self._owner.stream_opened(link, stream_id, payload)
            return
        if frame_type == frames.WINDOW:
            increment = _increment(payload)
            stream = self._streams.get(stream_id)
            if stream is None:
                self._check_known(stream_id)
            else:
                stream._receive_credit(increment)
                if stream in self._blocked:
                    del self._blocked[stream]
                    self._owner.stream_unblocked(stream)
            return
        if frame_type not in _STREAM_TYPES:
            # Before the id is looked at: an extension may give a frame any id that it likes.
            if frame_type in frames.SKIPPED_TYPES:
                return
            raise RemoteProtocolError(
                Code.PROTOCOL_ERROR, f"frame type 0x{frame_type:02x} on stream {stream_id}"
            )
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
        elif frame_type == frames.EOF:
            if payload:
                raise RemoteProtocolError(Code.PROTOCOL_ERROR, "EOF with a payload")
            stream._receive_eof()
        elif frame_type == frames.RESET:
            if len(payload) < 2:
                raise RemoteProtocolError(Code.PROTOCOL_ERROR, "RESET without a code")
            data = bytes(payload)
            stream._receive_reset(
                int.from_bytes(data[:2], "big"), data[2:1026].decode("utf-8", "replace")
            )
        else:
            raise RemoteProtocolError(
                Code.PROTOCOL_ERROR, f"STREAM_RESPONSE_HEAD on byte stream {stream_id}"
            )

    def _note_received(self, size: int) -> None:
        # Session credit is returned on receipt, also for dead streams: a stalled stream must cost
        # its own window and never the session.
        self._receive_credit -= size
        if self._receive_credit < 0:
            raise RemoteProtocolError(Code.FLOW_CONTROL, "session window exceeded")
        self._unacknowledged += size
        if self._unacknowledged >= SESSION_GRANT_BYTES or (
            self._unacknowledged * 2 >= self.session_window
        ):
            grant = self._unacknowledged
            self._unacknowledged = 0
            self._receive_credit += grant
            if self.links:
                self.links[0].send(frames.WINDOW, 0, grant.to_bytes(4, "big"))

    def _receive_session_credit(self, payload: Payload) -> None:
        was_out = self.send_credit <= 0
        self.send_credit = min(self.send_credit + _increment(payload), MAX_WINDOW)
        if was_out:
            for link in self.links:
                if link.ready:
                    link.wake()

    def _check_known(self, stream_id: int) -> None:
        """Late frames for a closed stream are legal; frames for one never opened are not."""
        if stream_id == 0 or stream_id > self._highest_seen:
            raise RemoteProtocolError(
                Code.PROTOCOL_ERROR, f"frame for stream {stream_id}, which was never opened"
            )

    # Called by streams.

    def forget(self, stream: Stream) -> None:
        """Drop a closed stream."""
        self._streams.pop(stream.id, None)
        self.note_drained(stream)
        if self._blocked.pop(stream, self) is None:
            self._owner.stream_unblocked(stream)

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


def _increment(payload: Payload) -> int:
    if len(payload) != 4:
        raise RemoteProtocolError(Code.PROTOCOL_ERROR, "WINDOW is not 4 bytes")
    increment = int.from_bytes(payload, "big")
    if increment == 0:
        raise RemoteProtocolError(Code.PROTOCOL_ERROR, "WINDOW of 0")
    return increment
