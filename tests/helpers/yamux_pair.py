"""yamux without sockets: one mux with its owner, two of them back to back, and frames to read."""

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict, Unpack

from helpers.pair import Reader
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.yamux.mux import Mux
from moleport_wire.yamux.streams import Stream

ROOM_BYTES = 256 * 1024
WINDOW = 256 * 1024
BUDGET_BYTES = 64 * 1024 * 1024


class Frame(NamedTuple):
    """One frame as it is on the wire."""

    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""


def frames_of(messages: list[bytes]) -> list[Frame]:
    """Read whole frames, by the description and not by the code under test."""
    data = b"".join(messages)
    frames = []
    while data:
        version, kind, flags, stream_id, length = struct.unpack(">BBHII", data[:12])
        assert version == 0
        size = 12 + (length if kind == 0 else 0)
        assert len(data) >= size
        frames.append(Frame(kind, flags, stream_id, length, data[12:size]))
        data = data[size:]
    return frames


class Limits(TypedDict, total=False):
    """How many streams a mux may have; its own defaults for what is absent."""

    max_streams: int
    max_unacknowledged: int
    max_waiting: int


@dataclass
class Side:
    """One end: a mux and everything that its owner heard (it is the `MuxOwner`)."""

    is_client: bool = True
    budget: ReceiveBudget = field(default_factory=lambda: ReceiveBudget(BUDGET_BYTES, WINDOW))
    limits: Limits = field(default_factory=Limits)
    refuses: bool = False
    mux: Mux = field(init=False)
    opened: dict[int, tuple[Stream, Reader]] = field(default_factory=dict)
    goaways: list[int] = field(default_factory=list)
    stalled: set[Stream] = field(default_factory=set)
    blocked: set[Stream] = field(default_factory=set)
    schedules: int = 0

    def __post_init__(self) -> None:
        self.mux = Mux(self, self.budget, self.schedule, is_client=self.is_client, **self.limits)
        self.mux.room = ROOM_BYTES

    def open(self, preface: bytes = b"") -> tuple[Stream, Reader]:
        """Open a stream, with a receiver that writes everything down."""
        reader = Reader()
        return self.mux.open(reader, lambda: preface), reader

    def take(self, room: int = ROOM_BYTES) -> list[bytes]:
        """Take what is due, as a port does once per tick."""
        messages = self.mux.take(room)
        self.mux.room = room
        return messages

    def frames(self, room: int = ROOM_BYTES) -> list[Frame]:
        """Take what is due and read it."""
        return frames_of(self.take(room))

    def fails(self, data: bytes) -> RemoteProtocolError:
        """Receive what breaks the protocol; returns the error."""
        try:
            self.mux.receive(data)
        except RemoteProtocolError as error:
            return error
        raise AssertionError("nothing was wrong with it")

    # MuxOwner

    def schedule(self) -> None:
        self.schedules += 1

    def goaway_received(self, code: int) -> None:
        self.goaways.append(code)

    def stream_opened(self, stream_id: int) -> None:
        if self.refuses:
            self.mux.refuse(stream_id)
            return
        reader = Reader()
        self.opened[stream_id] = (self.mux.accept(stream_id, reader), reader)

    def stream_stalled(self, stream: Stream) -> None:
        assert stream not in self.stalled
        self.stalled.add(stream)

    def stream_drained(self, stream: Stream) -> None:
        self.stalled.remove(stream)

    def stream_blocked(self, stream: Stream) -> None:
        assert stream not in self.blocked
        self.blocked.add(stream)

    def stream_unblocked(self, stream: Stream) -> None:
        self.blocked.remove(stream)


class YamuxPair:
    """A client and a server, and the bytes under way between them."""

    def __init__(self, **limits: Unpack[Limits]) -> None:
        self.client = Side(limits=limits)
        self.server = Side(is_client=False)
        self.to_server: deque[bytes] = deque()
        self.to_client: deque[bytes] = deque()

    def open_both(self, preface: bytes = b"") -> tuple[Stream, Reader, Stream, Reader]:
        """Open a stream and deliver it: the client's side and reader, then the server's."""
        stream, reader = self.client.open(preface)
        self.settle()
        return stream, reader, *self.server.opened[stream.id]

    def flush(self, side: Side, room: int = ROOM_BYTES) -> list[bytes]:
        """Give a side one turn; what it wrote is under way and returned."""
        messages = side.take(room)
        assert all(messages), "an empty message ends the connection of the stock client"
        (self.to_server if side is self.client else self.to_client).extend(messages)
        return messages

    def deliver(self, side: Side, size: int | None = None) -> bool:
        """Hand the oldest message, or its first bytes, to a side; False if there is none."""
        queue = self.to_client if side is self.client else self.to_server
        if not queue:
            return False
        message = queue.popleft()
        if size is not None and size < len(message):
            queue.appendleft(message[size:])
            message = message[:size]
        side.mux.receive(message)
        return True

    def settle(self) -> None:
        """Exchange messages until nothing moves any more."""
        is_moving = True
        while is_moving:
            is_moving = False
            for side in (self.client, self.server):
                is_moving |= bool(self.flush(side)) or side.mux.has_more
            for side in (self.client, self.server):
                while self.deliver(side):
                    is_moving = True
