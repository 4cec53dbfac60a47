"""Frames and messages of hoody-tunnel, read as the stock drivers read them.

A message that breaks a rule is thrown away whole and in silence; `BadMessage` says which rule, so that
the double can tell its test what the stock driver would only lose.
"""

import enum
import json
import struct
from typing import Any, NamedTuple

HEADER = struct.Struct(">BII")
MAX_MESSAGE_BYTES = 262_144
MAX_FRAMES = 64
MAX_PAYLOAD_BYTES = 65_536

V1 = "hoody-tunnel.v1"
V2 = "hoody-tunnel.v2"
PATH = "/api/v1/tunnel/connect"


class Type(enum.IntEnum):
    """What a frame is."""

    HELLO = 0x01
    HELLO_OK = 0x02
    BIND = 0x03
    BIND_OK = 0x04
    BIND_ERR = 0x05
    UNBIND = 0x06
    UNBIND_OK = 0x07
    UNBIND_ERR = 0x08
    JOIN = 0x09
    JOIN_OK = 0x0A
    JOIN_ERR = 0x0B
    SHARD_MAP = 0x0C
    REISSUE_JOIN_TICKETS = 0x0D
    STREAM_OPEN = 0x10
    DATA = 0x12
    EOF = 0x13
    RESET = 0x14
    WINDOW = 0x15
    STREAM_RESPONSE_HEAD = 0x16
    PING = 0x20
    PONG = 0x21
    GOAWAY = 0x30
    BIND_REVOKED = 0x40


KNOWN_TYPES = frozenset(Type)
FIRST_OPTIONAL, LAST_OPTIONAL = 0x40, 0x7F
"""Unknown types in here are skipped; all others make a message bad."""


class BadMessage(Exception):
    """A message that the stock driver drops without a word."""


class Frame(NamedTuple):
    """One frame; `type` is a plain number, because a double also sends what does not exist."""

    type: int
    stream_id: int
    payload: bytes = b""

    def encode(self) -> bytes:
        return HEADER.pack(self.type, self.stream_id, len(self.payload)) + self.payload

    @property
    def size(self) -> int:
        return HEADER.size + len(self.payload)

    def json(self) -> Any:
        return json.loads(self.payload)


def json_frame(kind: Type, fields: object, stream_id: int = 0) -> Frame:
    """Make a frame that carries JSON."""
    return Frame(kind, stream_id, json.dumps(fields, separators=(",", ":")).encode())


def window(stream_id: int, increment: int) -> Frame:
    return Frame(Type.WINDOW, stream_id, struct.pack(">I", increment))


def reset(stream_id: int, code: int, reason: str) -> Frame:
    return Frame(Type.RESET, stream_id, struct.pack(">H", code) + reason.encode())


def late_frames(stream_id: int) -> list[Frame]:
    """Return what a driver may still send for a stream that is over."""
    return [
        json_frame(
            Type.STREAM_RESPONSE_HEAD, {"status": 200, "headers": [], "final": True}, stream_id
        ),
        Frame(Type.DATA, stream_id, b"late"),
        window(stream_id, 100),
        Frame(Type.EOF, stream_id),
        reset(stream_id, 6, "local connect failed"),
    ]


def decode(message: bytes) -> list[Frame]:
    """Cut a message into frames, without those that may be skipped.

    Raises:
        BadMessage: A rule is broken; no frame of the message counts.
    """
    if not message:
        raise BadMessage("an empty message")
    if len(message) > MAX_MESSAGE_BYTES:
        raise BadMessage(f"a message of {len(message)} bytes")
    frames: list[Frame] = []
    count = offset = 0
    while offset < len(message):
        if len(message) - offset < HEADER.size:
            raise BadMessage("a truncated header")
        kind, stream_id, length = HEADER.unpack_from(message, offset)
        if length > MAX_PAYLOAD_BYTES:
            raise BadMessage(f"a payload of {length} bytes")
        offset += HEADER.size
        if len(message) - offset < length:
            raise BadMessage("a truncated payload")
        payload = message[offset : offset + length]
        offset += length
        count += 1
        if count > MAX_FRAMES:
            raise BadMessage("more than 64 frames")
        if kind in KNOWN_TYPES:
            frames.append(Frame(Type(kind), stream_id, payload))
        elif not FIRST_OPTIONAL <= kind <= LAST_OPTIONAL:
            raise BadMessage(f"frame type {kind:#x}")
    return frames


class Batch:
    """What one tick has to say on one socket, cut into messages that keep the rules."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._size = 0

    def add(self, frame: Frame) -> bytes | None:
        """Take a frame; returns the message that has to go first because this one does not fit."""
        full = None
        if len(self._frames) == MAX_FRAMES or self._size + frame.size > MAX_MESSAGE_BYTES:
            full = self.take()
        self._frames.append(frame)
        self._size += frame.size
        return full

    def take(self) -> bytes | None:
        """Return what is collected as a message, if there is anything."""
        if not self._frames:
            return None
        message = b"".join(frame.encode() for frame in self._frames)
        self._frames.clear()
        self._size = 0
        return message
