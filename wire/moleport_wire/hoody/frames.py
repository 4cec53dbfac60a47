"""Frames and how they share a message (hoody-tunnel "v3" batching, used by v1 and v2).

A message is the payload of one binary WebSocket message: 1 to 64 whole frames back to back, at most
262,144 bytes. A frame is a 9-byte header (type u8, stream id u32, payload length u32, big endian) and
at most 65,536 bytes of payload. Stream id 0 means the session.

Four full DATA frames do not fit in one message; writers must check both limits (see `MessageBatch`).
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

from moleport_wire.errors import RemoteProtocolError

HEADER: Final = Struct(">BII")
HEADER_BYTES: Final = 9
MAX_PAYLOAD_BYTES: Final = 65_536
MAX_MESSAGE_BYTES: Final = 262_144
MAX_MESSAGE_FRAMES: Final = 64

HELLO: Final = 0x01
HELLO_OK: Final = 0x02
BIND: Final = 0x03
BIND_OK: Final = 0x04
BIND_ERR: Final = 0x05
UNBIND: Final = 0x06
UNBIND_OK: Final = 0x07
UNBIND_ERR: Final = 0x08
JOIN: Final = 0x09
JOIN_OK: Final = 0x0A
JOIN_ERR: Final = 0x0B
SHARD_MAP: Final = 0x0C
REISSUE_JOIN_TICKETS: Final = 0x0D
STREAM_OPEN: Final = 0x10
DATA: Final = 0x12
EOF: Final = 0x13
RESET: Final = 0x14
WINDOW: Final = 0x15
STREAM_RESPONSE_HEAD: Final = 0x16
PING: Final = 0x20
PONG: Final = 0x21
GOAWAY: Final = 0x30
BIND_REVOKED: Final = 0x40
# moleport.1, in the range that stock clients skip:
REAUTH: Final = 0x41
REAUTH_OK: Final = 0x42
REAUTH_ERR: Final = 0x43
DRAIN: Final = 0x44
REPORT: Final = 0x45

KNOWN_TYPES: Final = frozenset(
    {
        HELLO, HELLO_OK, BIND, BIND_OK, BIND_ERR, UNBIND, UNBIND_OK, UNBIND_ERR, JOIN, JOIN_OK,
        JOIN_ERR, SHARD_MAP, REISSUE_JOIN_TICKETS, STREAM_OPEN, DATA, EOF, RESET, WINDOW,
        STREAM_RESPONSE_HEAD, PING, PONG, GOAWAY, BIND_REVOKED, REAUTH, REAUTH_OK, REAUTH_ERR,
        DRAIN, REPORT,
    }
)  # fmt: skip
_GREETINGS: Final = frozenset({HELLO, JOIN})
SKIPPED_TYPES: Final = range(0x40, 0x80)
"""Unknown types in this range are skipped (but counted); all other unknown types are violations."""


class Code(IntEnum):
    """Why a stream (RESET) or a session (GOAWAY) was ended."""

    NONE = 0
    PROTOCOL_ERROR = 1
    INTERNAL = 2
    FLOW_CONTROL = 3
    STREAM_CLOSED = 4
    FRAME_SIZE = 5
    REFUSED = 6
    CANCEL = 7
    CALM_DOWN = 8
    BIND_ERROR = 9
    IDLE_TIMEOUT = 10
    AUTH = 11
    VERSION_MISMATCH = 12
    TAKEOVER = 13
    EXHAUSTED = 14


Payload = bytes | memoryview
"""Frame payloads; views refer to immutable messages, so they may be kept."""

_COPY_BELOW_BYTES: Final = 4096
"""Slicing small payloads out is cheaper than a view that keeps a whole message alive."""


def serialize(frame_type: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame as bytes; for control frames and tests, the data path batches instead."""
    return HEADER.pack(frame_type, stream_id, len(payload)) + payload


def parse(message: bytes) -> Iterator[tuple[int, int, Payload]]:
    """Yield `(type, stream id, payload)` for each frame of a message, unknown skippable ones too.

    Frames before a fault have been yielded when the fault is found; the session is over then, so
    nobody misses the rest.

    Raises:
        RemoteProtocolError: the message is empty, too large, has too many frames, ends inside a frame,
            or has a frame of an unknown type that may not be skipped.
    """
    size = len(message)
    if not 0 < size <= MAX_MESSAGE_BYTES:
        if size:
            raise RemoteProtocolError(Code.FRAME_SIZE, f"message of {size} bytes")
        raise RemoteProtocolError(Code.PROTOCOL_ERROR, "empty message")
    view = memoryview(message) if size >= _COPY_BELOW_BYTES else None
    unpack = HEADER.unpack_from
    position = frames = 0
    while position < size:
        frames += 1
        start = position + HEADER_BYTES
        if start > size:
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, "truncated frame header")
        frame_type, stream_id, length = unpack(message, position)
        position = start + length
        if length > MAX_PAYLOAD_BYTES:
            raise RemoteProtocolError(Code.FRAME_SIZE, f"frame payload of {length} bytes")
        if position > size:
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, "truncated frame payload")
        if frames > MAX_MESSAGE_FRAMES:
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, "more than 64 frames in a message")
        if frame_type not in KNOWN_TYPES and frame_type not in SKIPPED_TYPES:
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, f"unknown frame type 0x{frame_type:02x}")
        if view is None or length < _COPY_BELOW_BYTES:
            yield frame_type, stream_id, message[start:position]
        else:
            yield frame_type, stream_id, view[start:position]


def divide(message: memoryview) -> list[bytes]:
    """Copy a message into several of whole frames: large frames get one each, small ones share one.

    Who keeps a payload keeps the bytes it is a view of: out of one copy of the whole message a stalled
    reader would hold on to what was for others. A message against the rules comes back whole, for
    `parse` to find the fault.
    """
    size = len(message)
    if message[0] in _GREETINGS or size > MAX_MESSAGE_BYTES:
        # Nothing may follow a greeting, and pieces of a message that is too large would be legal.
        return [bytes(message)]
    pieces: list[bytes] = []
    begin = position = frames = 0
    while position + HEADER_BYTES <= size:
        frames += 1
        _, _, length = HEADER.unpack_from(message, position)
        position += HEADER_BYTES + length
        if position - begin >= _COPY_BELOW_BYTES:
            if position > size:
                break
            pieces.append(bytes(message[begin:position]))
            begin = position
    if position != size or frames > MAX_MESSAGE_FRAMES:
        return [bytes(message)]
    if begin < size:
        pieces.append(bytes(message[begin:]))
    return pieces


class MessageBatch:
    """Collects frames for one link and cuts them into legal messages.

    The caller appends during a loop tick and takes everything once at its end: few large messages
    instead of many small ones.
    """

    __slots__ = ("_bytes", "_messages", "_parts", "frames", "size")

    def __init__(self) -> None:
        self._messages: list[list[Payload]] = []
        self._parts: list[Payload] = []
        self.frames = 0
        """Frames of the message that is being filled."""
        self._bytes = 0
        self.size = 0
        """Bytes collected since the last `take`, headers included."""

    def append(self, frame_type: int, stream_id: int, payload: Payload = b"") -> None:
        """Add a frame; its payload must not exceed 65,536 bytes (the writers cut it)."""
        length = len(payload)
        frame_bytes = length + HEADER_BYTES
        if self.frames == MAX_MESSAGE_FRAMES or self._bytes + frame_bytes > MAX_MESSAGE_BYTES:
            self._messages.append(self._parts)
            self._parts = []
            self.frames = self._bytes = 0
        self._parts.append(HEADER.pack(frame_type, stream_id, length))
        if length:
            self._parts.append(payload)
        self.frames += 1
        self._bytes += frame_bytes
        self.size += frame_bytes

    def take(self) -> list[bytes]:
        """Return the messages in order and start anew."""
        messages = [b"".join(parts) for parts in self._messages]
        if self._parts:
            messages.append(b"".join(self._parts))
        self._messages = []
        self._parts = []
        self.frames = self._bytes = self.size = 0
        return messages
