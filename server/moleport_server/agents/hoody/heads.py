"""Heads between HTTP/1.1 and the JSON of exchanges: which fields pass, and how bytes become text.

Pure. How an answer is framed towards the edge is for the caller to say; fields of the connection between
the driver and its service never get through.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from moleport_wire.hoody.exchanges import Fields

CONNECTION_FIELDS: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Of answers, never passed on: a driver removes most of them, and none says how we frame."""


def answer_head(status: int, fields: Fields, framing: bytes) -> bytes:
    """Return the head of an answer as HTTP/1.1, framed by the edge's rules and not by the driver's."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [
        b"%b: %b\r\n" % (name.encode(), _octets(value))
        for name, value in fields
        if name.lower() not in CONNECTION_FIELDS
    ]
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, phrase.encode(), b"".join(lines), framing)


def switch_framing(fields: Fields) -> bytes:
    """Return the lines that make 101 a switch of protocols."""
    protocol = next((value for name, value in fields if name.lower() == "upgrade"), "websocket")
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % _octets(protocol)


def _octets(value: str) -> bytes:
    """Return the bytes of a field: node hands them out as Latin-1, others as UTF-8."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def text_of(value: bytes) -> str:
    """Return a text that the driver writes as the same bytes, which it does in UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def text_fields(fields: list[tuple[bytes, bytes]]) -> Fields:
    """Return the fields as texts, in order, repeated ones too."""
    return tuple((text_of(name), text_of(value)) for name, value in fields)


def joined_fields(fields: list[tuple[bytes, bytes]]) -> Fields:
    """Return the fields with repeated ones joined: on an upgrade drivers keep only the last."""
    joined: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in joined:
            joined[name] += (b"; " if name == b"cookie" else b", ") + value
        else:
            joined[name] = value
    return text_fields(list(joined.items()))
