"""What the edge remembers of one finished request, and how such a record is named.

The edge makes one `Capture` per request on the hot path, so it is plain state: raw bytes, numbers,
no UUID and no text. Ids are a random prefix per process and a counter; they become UUIDs (version 8
of RFC 9562, made for own layouts) only when somebody looks, and are read back without a table.
"""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self
from uuid import RFC_4122, UUID

_PREFIX_BITS: Final = 64
_COUNTER_BITS: Final = 58
"""64 + 58 are the 122 bits that version and variant leave; no process counts that far."""


class IdSpace:
    """Numbers that become UUIDs nobody else makes.

    Attributes:
        next: takes the next number, 1 first; the one call of the hot path.
    """

    __slots__ = ("_prefix", "next")

    def __init__(self, prefix: int) -> None:
        if not 0 <= prefix < 1 << _PREFIX_BITS:
            raise ValueError("the prefix of an id space has 64 bits")
        self._prefix = prefix
        self.next: Callable[[], int] = itertools.count(1).__next__

    @classmethod
    def random(cls) -> Self:
        """Make a space that meets no id of another process, by 64 random bits."""
        return cls(secrets.randbits(_PREFIX_BITS))

    def format(self, number: int) -> str:
        """Return the UUID text of a number of this space."""
        bits = self._prefix << _COUNTER_BITS | number
        # 48 bits, version 8, 12 bits, variant 0b10, 62 bits: RFC 9562 section 5.8.
        layout = (
            (bits >> 74) << 80
            | 0x8 << 76
            | (bits >> 62 & 0xFFF) << 64
            | 0b10 << 62
            | bits & (1 << 62) - 1
        )
        return str(UUID(int=layout))

    def parse(self, text: str) -> int | None:
        """Return the number behind an id, or None if it is not one of this space."""
        try:
            uuid = UUID(text)
        except ValueError:
            return None
        if uuid.version != 8 or uuid.variant != RFC_4122 or str(uuid) != text:
            return None
        value = uuid.int
        bits = (value >> 80) << 74 | (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1
        if bits >> _COUNTER_BITS != self._prefix:
            return None
        return bits & (1 << _COUNTER_BITS) - 1


@dataclass(frozen=True, slots=True)
class CaptureIds:
    """The id spaces of one server process: the edge draws from them, outputs format with them."""

    requests: IdSpace
    connections: IdSpace

    @classmethod
    def random(cls) -> Self:
        """Make both spaces; once per process."""
        return cls(IdSpace.random(), IdSpace.random())


class Capture:
    """One finished request with its original heads and the beginnings of its bodies.

    Holds secrets of visitors: only `masking` may turn it into text that leaves the process. Spelled out
    and not a dataclass, whose `__init__` is never compiled: one is made per request.

    Attributes:
        sequence: from `CaptureIds.requests`; the request id derives from it.
        target: path and query as received.
        request_bytes: body bytes really passed, without framing; the same for `response_bytes`.
        captured_at: Unix seconds at the end of the request.
        connection_id: from `CaptureIds.connections`: the visitor's connection.
        request_head: raw, as the visitor sent it.
        response_head: raw, as the visitor got it.
        request_body: the first 64 KiB at most; None if there was none or the log gave it up to save
            memory. The same for `response_body`.
        request_truncated: whether `request_body` lacks its end; the same for `response_truncated`.
        peer: `ip:port` of the visitor.
        charged_bytes: what the log counts for it; the log's own.
    """

    __slots__ = (
        "captured_at",
        "charged_bytes",
        "connection_id",
        "duration_seconds",
        "method",
        "peer",
        "request_body",
        "request_bytes",
        "request_head",
        "request_truncated",
        "response_body",
        "response_bytes",
        "response_head",
        "response_truncated",
        "sequence",
        "status",
        "target",
    )

    def __init__(
        self,
        sequence: int,
        method: bytes,
        target: bytes,
        status: int,
        request_bytes: int,
        response_bytes: int,
        duration_seconds: float,
        captured_at: float,
        connection_id: int,
        request_head: bytes,
        response_head: bytes,
        request_body: bytes | None,
        response_body: bytes | None,
        request_truncated: bool,  # noqa: FBT001 - by position, for speed
        response_truncated: bool,  # noqa: FBT001
        peer: str,
    ) -> None:
        self.sequence = sequence
        self.method = method
        self.target = target
        self.status = status
        self.request_bytes = request_bytes
        self.response_bytes = response_bytes
        self.duration_seconds = duration_seconds
        self.captured_at = captured_at
        self.connection_id = connection_id
        self.request_head = request_head
        self.response_head = response_head
        self.request_body = request_body
        self.response_body = response_body
        self.request_truncated = request_truncated
        self.response_truncated = response_truncated
        self.peer = peer
        self.charged_bytes = 0

    def __repr__(self) -> str:
        # Heads and targets carry credentials, and a repr ends up in tracebacks.
        return f"<Capture {self.sequence} status={self.status}>"
