"""yamux frames: a 12-byte header, and a body behind DATA frames only.

The header is version u8 (always 0), type u8, flags u16, stream id u32, length u32, big endian. `length`
counts body bytes in DATA, is credit in WINDOW_UPDATE, an opaque value in PING and a code in GO_AWAY.
Stream id 0 means the connection.

The frames are one byte stream, cut into binary WebSocket messages anywhere: the messages of the stock
client hold a header or a body, ours as many whole frames as fit (see `Batch`).
"""

from enum import IntEnum
from struct import Struct
from typing import Final

from moleport_wire.hoody.frames import Payload

HEADER: Final = Struct(">BBHII")
HEADER_BYTES: Final = 12

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

INITIAL_WINDOW_BYTES: Final = 256 * 1024
"""What either side may send on a new stream; yamux has no way to start with less."""
MAX_WINDOW_BYTES: Final = 4 * 1024 * 1024
"""How far a receive window grows: 40 MB/s at a round trip of 100 ms."""
MAX_BODY_BYTES: Final = 64 * 1024
"""The longest body that we write; the stock client takes up to 1 MiB."""
MAX_MESSAGE_BYTES: Final = 256 * 1024
"""The longest message that we write; the stock client takes up to 16 MiB."""
MAX_STREAM_ID: Final = 2**32 - 1
MAX_CREDIT: Final = 2**32 - 1


class GoAwayCode(IntEnum):
    """Why a peer ends the connection; also the code of `RemoteProtocolError` here."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def serialize(
    frame_type: int, flags: int, stream_id: int, length: int = 0, body: bytes = b""
) -> bytes:
    """Return one frame as bytes, for tests and tools; the data path batches instead.

    `length` is taken from the body if there is one.
    """
    return HEADER.pack(0, frame_type, flags, stream_id, len(body) or length) + body


class Batch:
    """Collects frames and cuts them into messages of at most `MAX_MESSAGE_BYTES`.

    The caller appends during a loop tick and takes everything once at its end. A message is never
    empty: the stock client takes an empty one for the end of the connection.
    """

    __slots__ = ("_bytes", "_messages", "_parts", "frames", "size")

    def __init__(self) -> None:
        self._messages: list[list[Payload]] = []
        self._parts: list[Payload] = []
        self._bytes = 0
        self.frames = 0
        """Frames collected since the last `take`."""
        self.size = 0
        """Bytes collected since the last `take`, headers included."""

    def append(self, flags: int, stream_id: int, body: Payload) -> None:
        """Add a DATA frame; its body must not exceed `MAX_BODY_BYTES` (the writers cut it)."""
        length = len(body)
        frame_bytes = length + HEADER_BYTES
        if self._bytes + frame_bytes > MAX_MESSAGE_BYTES:
            self._cut()
        parts = self._parts
        parts.append(HEADER.pack(0, DATA, flags, stream_id, length))
        if length:
            parts.append(body)
        self.frames += 1
        self._bytes += frame_bytes
        self.size += frame_bytes

    def append_header(self, frame_type: int, flags: int, stream_id: int, length: int) -> None:
        """Add a frame of any type that has no body."""
        if self._bytes + HEADER_BYTES > MAX_MESSAGE_BYTES:
            self._cut()
        self._parts.append(HEADER.pack(0, frame_type, flags, stream_id, length))
        self.frames += 1
        self._bytes += HEADER_BYTES
        self.size += HEADER_BYTES

    def take(self) -> list[bytes]:
        """Return the messages in order and start anew."""
        if self._parts:
            self._cut()
        messages = [b"".join(parts) for parts in self._messages]
        self._messages = []
        self.frames = self.size = 0
        return messages

    def _cut(self) -> None:
        self._messages.append(self._parts)
        self._parts = []
        self._bytes = 0
