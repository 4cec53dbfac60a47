"""yamux, written a second time: slow, literal, and from another description than the server's.

Both roles, as the library of the stock rustunnel client behaves (protocols of the family, section 3):
it acknowledges a stream with the first frame it sends on it, credits half a window at a time, writes
the header and the body of a frame as two messages, splits bodies at 16 KiB, and ends the connection
over each violation. The owner feeds bytes in (`feed`) and gets bytes out through `emit`; whoever uses
a stream waits on it (`read`, `write`).
"""

import asyncio
import random
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
NORMAL, PROTOCOL_ERROR, INTERNAL_ERROR = range(3)

HEADER = struct.Struct(">BBHII")
INITIAL_WINDOW = 262_144
MAX_BODY_IN = 2**20
MAX_BODY_OUT = 16_384
MAX_STREAMS = 512
MAX_UNACKNOWLEDGED = 256
WINDOW_BUDGET = 2**30


class StreamReset(Exception):
    """The stream ended both ways at once: the peer reset it, or the connection went."""


class YamuxClosed(Exception):
    """The connection is unusable from now on; `code` is that of the GoAway, None without one.

    `by_peer` tells who gave up. The text says why.
    """

    def __init__(self, why: str, code: int | None = None, *, by_peer: bool = False) -> None:
        super().__init__(why)
        self.code = code
        self.by_peer = by_peer


class Header(NamedTuple):
    """The twelve bytes before everything, without the version."""

    kind: int
    flags: int
    stream_id: int
    length: int


@dataclass
class Quirks:
    """What a library does other than it should, for the tests that want it."""

    acknowledges: bool = True
    grants: bool = True
    answers_pings: bool = True
    max_streams: int = MAX_STREAMS
    max_unacknowledged: int = MAX_UNACKNOWLEDGED


@dataclass
class Counts:
    """What passed, for the tests that count."""

    opened: int = 0
    finished: int = 0
    reset_by_peer: int = 0
    most_open: int = 0
    most_unacknowledged: int = 0
    pings_answered: int = 0
    pongs: int = 0
    violations: list[str] = field(default_factory=list)


class Stream:
    """One stream. One task reads, one writes; end it with `finish` and `read` to the end, or `drop`."""

    def __init__(self, mux: "Yamux", stream_id: int, *, ours: bool) -> None:
        self._mux = mux
        self.id = stream_id
        self.send_credit = INITIAL_WINDOW
        self.receive_window = INITIAL_WINDOW
        self._window_size = INITIAL_WINDOW
        self._consumed = 0
        self._credited_at = mux.now()
        self._chunks: deque[bytes] = deque()
        self._flags = SYN if ours else ACK
        self.is_acknowledged = False
        self.finished_by_peer = False
        self.finished_by_us = False
        self.is_reset = False
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def take_flags(self) -> int:
        """Return SYN or ACK for the first frame of ours, nothing for the next ones."""
        flags, self._flags = self._flags, 0
        if flags == ACK:
            if not self._mux.quirks.acknowledges:
                return 0
            self.is_acknowledged = True
        return flags

    async def read(self, limit: int = 8_192) -> bytes:
        """Return some bytes, or none at the end of the peer's half.

        Raises:
            StreamReset: The stream is gone; what was buffered is gone with it.
        """
        while not self._chunks:
            if self.is_reset:
                raise StreamReset(f"stream {self.id}")
            if self.finished_by_peer:
                return b""
            await self.changed.wait()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self._consumed += len(chunk)
        self._credit()
        return chunk

    def _credit(self) -> None:
        if self._consumed * 2 < self._window_size or self.finished_by_peer or self.is_reset:
            return
        if not self._mux.quirks.grants:
            return
        credit = self._consumed
        rtt, elapsed = self._mux.rtt, self._mux.now() - self._credited_at
        if rtt is not None and elapsed < 2 * rtt:
            credit += self._mux.grow_budget(self._window_size)
            self._window_size += credit - self._consumed
        self._consumed = 0
        self._credited_at = self._mux.now()
        self.receive_window += credit
        self._mux.send(WINDOW_UPDATE, self.take_flags(), self.id, credit)

    async def write(self, data: bytes) -> None:
        """Send all of it, waiting for credit.

        Raises:
            StreamReset: The stream is gone.
        """
        rest = memoryview(data)
        while rest:
            if self.is_reset:
                raise StreamReset(f"stream {self.id}")
            assert not self.finished_by_us
            if self.send_credit == 0:
                await self.changed.wait()
                continue
            body = bytes(rest[: min(MAX_BODY_OUT, self.send_credit)])
            rest = rest[len(body) :]
            self.send_credit -= len(body)
            self._mux.send(DATA, self.take_flags(), self.id, len(body))
            self._mux.emit(body)
            await self._mux.room()

    def finish(self) -> None:
        """End our half; reading goes on."""
        if self.is_reset or self.finished_by_us:
            return
        self.finished_by_us = True
        self._mux.send(DATA, self.take_flags() | FIN, self.id, 0)
        self._mux.forget_if_over(self)

    def drop(self) -> None:
        """Let go of it, as the library does when its handle is dropped: what is said depends on the state."""
        if not self.is_reset:
            if not self.finished_by_us and not self.finished_by_peer:
                self.reset()
            elif not self.finished_by_us:
                self.finish()
            # Our half is finished, the peer's is not: nothing is sent.
        self._mux.forget(self)

    def reset(self) -> None:
        """End both halves at once."""
        if not self.is_reset:
            self._mux.send(DATA, self.take_flags() | RST, self.id, 0)
            self.is_reset = True
            self.wake()
        self._mux.forget(self)

    # What arrives

    def receive(self, flags: int, body: bytes, credit: int) -> None:
        """Take a frame that belongs here."""
        if flags & ACK:
            self.is_acknowledged = True
        if flags & RST:
            self._mux.counts.reset_by_peer += 1
            self.lose()
            self._mux.forget(self)
            return
        self.send_credit += credit
        if body and not self.finished_by_peer:
            if len(body) > self.receive_window:
                raise self._mux.violation(f"stream {self.id}: more than its window")
            self.receive_window -= len(body)
            self._chunks.append(body)
        if flags & FIN:
            self.finished_by_peer = True
            self._mux.counts.finished += 1
            self._mux.forget_if_over(self)
        self.wake()

    def lose(self) -> None:
        """Both halves are over without the peer being told."""
        self.is_reset = True
        self._chunks.clear()
        self.wake()


class Yamux:
    """One end of a yamux connection.

    Args:
        emit: Takes bytes to send; each call is a message of its own.
        room: Waits until more may be sent.
        is_client: Whether this end opens odd streams; the stock client of rustunnel does not.
        accepted: Is called with each stream the peer opened.
    """

    def __init__(
        self,
        emit: Callable[[bytes], None],
        room: Callable[[], Awaitable[None]],
        *,
        is_client: bool,
        accepted: Callable[[Stream], None],
        quirks: Quirks | None = None,
    ) -> None:
        self.emit = emit
        self.room = room
        self.quirks = quirks or Quirks()
        self.counts = Counts()
        self.streams: dict[int, Stream] = {}
        self.rtt: float | None = None
        """Measured by a ping; windows grow only when it is known."""
        self._accepted = accepted
        self._is_client = is_client
        self._next_id = 1 if is_client else 2
        self._highest_seen = 0
        self._buffer = bytearray()
        self._budget = WINDOW_BUDGET
        self._ping: tuple[int, float] | None = None
        self._is_over = False

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def grow_budget(self, wanted: int) -> int:
        """Take from what all windows together may grow by."""
        granted = min(wanted, self._budget)
        self._budget -= granted
        return granted

    def send(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Send a header; a body follows by itself."""
        self.emit(HEADER.pack(0, kind, flags, stream_id, length))

    def open(self) -> Stream:
        """Open a stream; the peer hears of it with the first frame."""
        stream = Stream(self, self._next_id, ours=True)
        self._next_id += 2
        self._add(stream)
        return stream

    def ping(self) -> None:
        """Measure the round trip, unless a ping is under way."""
        if self._ping is None:
            nonce = random.getrandbits(32)
            self._ping = (nonce, self.now())
            self.send(PING, SYN, 0, nonce)

    def lose(self) -> None:
        """The transport is gone: end each stream."""
        self._is_over = True
        for stream in self.streams.values():
            stream.lose()
        self.streams.clear()

    def forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)

    def forget_if_over(self, stream: Stream) -> None:
        if stream.finished_by_peer and stream.finished_by_us:
            self.forget(stream)

    @property
    def unacknowledged(self) -> int:
        """How many streams of the peer have not been acknowledged."""
        return sum(not each.is_acknowledged for each in self._of_peer())

    def _of_peer(self) -> list[Stream]:
        parity = 0 if self._is_client else 1
        return [each for each in self.streams.values() if each.id % 2 == parity]

    def violation(self, why: str, code: int = PROTOCOL_ERROR) -> YamuxClosed:
        """Say GoAway and end all streams; returns what to raise."""
        self.counts.violations.append(why)
        self.send(GO_AWAY, 0, 0, code)
        self.lose()
        return YamuxClosed(why, code)

    # What arrives

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer, cut anywhere.

        Raises:
            YamuxClosed: The connection is over. After our own GoAway what comes is thrown away, so
                feeding on is fine and raises nothing.
        """
        if self._is_over:
            return
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            version, *fields = HEADER.unpack_from(self._buffer)
            header = Header(*fields)
            if version != 0 or header.kind > GO_AWAY:
                self.lose()
                raise YamuxClosed(f"not yamux: {header}")
            body_length = header.length if header.kind == DATA else 0
            if body_length > MAX_BODY_IN:
                self.lose()
                raise YamuxClosed(f"a body of {body_length} bytes")
            if len(self._buffer) < HEADER.size + body_length:
                return
            body = bytes(self._buffer[HEADER.size : HEADER.size + body_length])
            del self._buffer[: HEADER.size + body_length]
            self._receive(header, body)

    def _receive(self, header: Header, body: bytes) -> None:
        if header.kind == PING:
            self._receive_ping(header)
        elif header.kind == GO_AWAY:
            self.lose()
            raise YamuxClosed("the peer said GoAway", header.length, by_peer=True)
        elif header.flags & SYN:
            self._receive_opening(header, body)
        elif header.stream_id in self.streams:
            credit = header.length if header.kind == WINDOW_UPDATE else 0
            self.streams[header.stream_id].receive(header.flags, body, credit)

    def _receive_ping(self, header: Header) -> None:
        if header.flags & ACK:
            if self._ping is None or self._ping[0] != header.length:
                raise self.violation("an answer to a ping that was not sent")
            self.rtt = self.now() - self._ping[1]
            self._ping = None
            self.counts.pongs += 1
        elif header.flags & SYN and self.quirks.answers_pings:
            self.counts.pings_answered += 1
            self.send(PING, ACK, 0, header.length)

    def _receive_opening(self, header: Header, body: bytes) -> None:
        stream_id = header.stream_id
        parity = 0 if self._is_client else 1
        if header.flags & RST:
            return
        if stream_id == 0 or stream_id % 2 != parity:
            raise self.violation(f"stream {stream_id} is not the peer's to open")
        if stream_id in self.streams:
            raise self.violation(f"stream {stream_id} is open already")
        if stream_id <= self._highest_seen:
            # The library has forgotten and would take it; the family's rule is that ids only rise.
            self.counts.violations.append(f"stream {stream_id} was used before")
        self._highest_seen = max(self._highest_seen, stream_id)
        if len(body) > INITIAL_WINDOW:
            raise self.violation(f"stream {stream_id} opens with {len(body)} bytes")
        is_full = len(self.streams) >= self.quirks.max_streams
        if is_full or self.unacknowledged >= self.quirks.max_unacknowledged:
            raise self.violation(
                f"stream {stream_id} is one too many",
                INTERNAL_ERROR if header.kind == DATA else PROTOCOL_ERROR,
            )
        stream = Stream(self, stream_id, ours=False)
        self._add(stream)
        self.counts.opened += 1
        stream.receive(
            header.flags & ~SYN, body, header.length if header.kind == WINDOW_UPDATE else 0
        )
        self._accepted(stream)

    def _add(self, stream: Stream) -> None:
        self.streams[stream.id] = stream
        self.counts.most_open = max(self.counts.most_open, len(self.streams))
        self.counts.most_unacknowledged = max(self.counts.most_unacknowledged, self.unacknowledged)
