"""Header rules of the edge: what a proxy may pass on, pure and table-driven (RFC 9110, 9112).

Field names keep the spelling they came with; lookups are by lower-case name. A field is either passed
on as it is, dropped because it belongs to one connection, or has a meaning of its own for the edge.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection (RFC 9110 section 7.6.1), never passed on."""


class Field(IntEnum):
    """What a request field means to the edge."""

    DROP = 0
    HOST = 1
    CONTENT_LENGTH = 2
    TRANSFER_ENCODING = 3
    CONNECTION = 4
    UPGRADE = 5
    EXPECT = 6
    ACCEPT = 7
    AUTHORIZATION = 8
    REQUEST_ID = 9
    FORWARDED_FOR = 10
    FORWARDED_PROTO = 11
    FORWARDED_HOST = 12


REQUEST_FIELDS: Final[dict[bytes, Field]] = {
    b"host": Field.HOST,
    b"content-length": Field.CONTENT_LENGTH,
    b"transfer-encoding": Field.TRANSFER_ENCODING,
    b"connection": Field.CONNECTION,
    b"upgrade": Field.UPGRADE,
    b"expect": Field.EXPECT,
    b"accept": Field.ACCEPT,
    b"authorization": Field.AUTHORIZATION,
    b"x-request-id": Field.REQUEST_ID,
    b"x-forwarded-for": Field.FORWARDED_FOR,
    b"x-forwarded-proto": Field.FORWARDED_PROTO,
    b"x-forwarded-host": Field.FORWARDED_HOST,
    b"forwarded": Field.DROP,
    b"x-real-ip": Field.DROP,
    b"http2-settings": Field.DROP,
    b"keep-alive": Field.DROP,
    b"proxy-connection": Field.DROP,
    b"proxy-authenticate": Field.DROP,
    b"proxy-authorization": Field.DROP,
    b"te": Field.DROP,
    b"trailer": Field.DROP,
}
"""Request fields that are not simply passed on."""

RESPONSE_FIELDS: Final[dict[bytes, Field]] = {
    b"content-length": Field.CONTENT_LENGTH,
    b"transfer-encoding": Field.TRANSFER_ENCODING,
    b"connection": Field.CONNECTION,
    b"upgrade": Field.UPGRADE,
    b"x-request-id": Field.REQUEST_ID,
    b"keep-alive": Field.DROP,
    b"proxy-connection": Field.DROP,
    b"te": Field.DROP,
    b"trailer": Field.DROP,
}
"""Response fields that are not simply passed on."""

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Methods that may be sent again when no answer came (RFC 9110 section 9.2.2)."""

BODILESS_STATUS: Final = frozenset({204, 304})

MAX_HOST_BYTES: Final = 512
"""A name has at most 253 characters; the rest is room for a port and for no surprises."""

_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#]*)(.*)", re.DOTALL)


def is_request_id(value: bytes) -> bool:
    """Whether a visitor's X-Request-Id may be kept: printable, without spaces, at most 128 bytes."""
    return _REQUEST_ID.fullmatch(value) is not None


def is_host(value: bytes) -> bool:
    """Whether a Host field is an authority without user information (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(value) is not None


@lru_cache(maxsize=1024)
def hostname_of(host: bytes) -> str | None:
    """Return the name that routes: lower case, without port and trailing dot.

    None if it is no authority (`is_host`). Remembered, since visitors name few hosts again and again.
    """
    if len(host) > MAX_HOST_BYTES or not is_host(host):
        return None
    name = host.lower()
    if name.startswith(b"["):
        name = name.partition(b"]")[0] + b"]"
    elif b":" in name:
        name = name.partition(b":")[0]
    return name.rstrip(b".").decode("ascii")


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Split an absolute-form target into authority and origin form; None if it is not one."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    authority, path = match.groups()
    if not path.startswith(b"/"):
        path = b"/" + path
    return authority, path


_HARMLESS: Final = frozenset({b"close", b"keep-alive", b"upgrade"})


@lru_cache(maxsize=256)
def tokens(value: bytes) -> frozenset[bytes]:
    """Return the lower-case members of a comma separated list, such as `Connection`."""
    return frozenset(
        token.strip(b" \t").lower() for token in value.split(b",") if token.strip(b" \t")
    )


def without_named(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Drop the field lines that `Connection` named, `close` and `keep-alive` aside."""
    gone = names - _HARMLESS
    if not gone:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in gone]


def append_forwarded(before: bytes | None, address: bytes) -> bytes:
    """Return X-Forwarded-For with one more address, for a peer whose list is believed."""
    return address if not before else b"%b, %b" % (before, address)
