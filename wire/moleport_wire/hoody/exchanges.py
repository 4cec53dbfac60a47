"""Heads of exchanges: one HTTP request and its answer as JSON, for stock drivers.

A stock driver does not relay bytes of HTTP: it gets the head of a request with STREAM_OPEN, sends that
of the answer with STREAM_RESPONSE_HEAD, and bodies travel as DATA. TCP streams of a PULL have a head of
one member. The rules for the fields themselves are the kit's (`moleport_server.agents.hoody`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.frames import MAX_PAYLOAD_BYTES, Code, Payload
from moleport_wire.hoody.members import Members

MAX_FIELDS: Final = 1000
"""Fields in the head of one answer; a frame of 64 KiB holds no more that make sense."""

Fields = tuple[tuple[str, str], ...]
"""Names and values, in order, repeated ones too."""

_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\r\n\0]*")


class HeadTooLarge(ValueError):
    """The head of a request does not fit into one frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOpen:
    """STREAM_OPEN of a request."""

    method: str
    target: str
    fields: Fields
    is_upgrade: bool = False
    bind_id: int
    """Stock drivers do not look at it; it helps whoever reads a trace."""

    def encode(self) -> bytes:
        """Return the payload.

        Raises:
            HeadTooLarge: it is larger than a frame may be.
        """
        payload = _encode_json(
            {
                "kind": "http",
                "method": self.method,
                "target": self.target,
                "headers": [[name, value] for name, value in self.fields],
                "isUpgrade": self.is_upgrade,
                "bindId": self.bind_id,
            }
        ).encode()
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise HeadTooLarge(f"the head has {len(payload)} bytes in a frame")
        return payload

    @classmethod
    def decode(cls, payload: Payload) -> ExchangeOpen:
        """Read a payload, as a driver would."""
        m = Members.parse("STREAM_OPEN", payload)
        return cls(
            method=m.text("method"),
            target=m.long_text("target"),
            fields=_fields(m),
            is_upgrade=m.flag("isUpgrade"),
            bind_id=m.optional_integer("bindId") or 0,
        )


def encode_tcp_open(bind_id: int) -> bytes:
    """Return the STREAM_OPEN payload of a TCP connection."""
    return b'{"kind":"tcp","bindId":%d}' % bind_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """STREAM_RESPONSE_HEAD: the head of an answer."""

    status: int
    fields: Fields

    def encode(self) -> bytes:
        """Return the payload."""
        return _encode_json(
            {
                "status": self.status,
                "headers": [[name, value] for name, value in self.fields],
                "final": True,
            }
        ).encode()

    @classmethod
    def decode(cls, payload: Payload) -> ResponseHead:
        """Read a payload.

        Raises:
            RemoteProtocolError: a status outside of 100 and 599, or a field that HTTP does not know:
                such an answer ends its stream, not the session.
        """
        m = Members.parse("STREAM_RESPONSE_HEAD", payload)
        return cls(status=m.integer("status", low=100, high=599), fields=_fields(m))


def _fields(m: Members) -> Fields:
    fields: list[tuple[str, str]] = []
    for row in m.arrays("headers", limit=MAX_FIELDS):
        if len(row) != 2 or not _is_field(row[0], row[1]):
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, "a header that HTTP does not know")
        fields.append((row[0], row[1]))
    return tuple(fields)


def _is_field(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and _NAME.fullmatch(name) is not None
        and _VALUE.fullmatch(value) is not None
    )
