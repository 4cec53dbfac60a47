"""Reads the server name from the first bytes of a TLS connection.

The TLS engine under our listeners works on OpenSSL directly and must never get a context with a
Python SNI callback: CPython's C code then follows a pointer that only its own `ssl` objects set,
and the process dies. So the name is read from the ClientHello before the handshake (RFC 8446
sections 4.1.2 and 5.1, RFC 6066 section 3). Pure; a wrong guess here can only pick another
certificate, because OpenSSL parses the same bytes again.
"""

from dataclasses import dataclass

MAX_HELLO_BYTES = 16_384
"""Above the largest ClientHello of browsers (about 2 KiB with post-quantum keys). Bounds what a
stranger can make the server keep before its handshake."""

_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_SERVER_NAME_EXTENSION = 0
_HOST_NAME = 0
_RECORD_HEADER = 5
_HANDSHAKE_HEADER = 4


class NotTls(ValueError):
    """The bytes are not the beginning of a TLS connection that we could serve."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The ClientHello is not complete; look again when `total` bytes are there."""

    total: int


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What is known before the handshake."""

    server_name: str | None
    """In lower case without a trailing dot; None if the client sent none that can be used."""


def parse_client_hello(data: bytes) -> ClientHello | NeedMore:
    """Read the beginning of a connection.

    Args:
        data: everything received so far, from the first byte on.

    Raises:
        NotTls: it is not a ClientHello, is malformed, or is larger than `MAX_HELLO_BYTES`.
    """
    if data and data[0] != _HANDSHAKE_RECORD:
        raise NotTls("the first record is not a handshake")
    message = bytearray()
    at = 0
    while True:
        if len(data) < at + _RECORD_HEADER:
            return _more(at + _RECORD_HEADER)
        if data[at] != _HANDSHAKE_RECORD or data[at + 1] != 3:
            raise NotTls("not a handshake record of TLS")
        end = at + _RECORD_HEADER + int.from_bytes(data[at + 3 : at + 5])
        if end == at + _RECORD_HEADER:
            raise NotTls("an empty handshake record")
        if len(data) < end:
            return _more(end)
        message += data[at + _RECORD_HEADER : end]
        if message[0] != _CLIENT_HELLO:
            raise NotTls("the first message is not a ClientHello")
        if len(message) >= _HANDSHAKE_HEADER:
            length = int.from_bytes(message[1:4])
            if length > MAX_HELLO_BYTES:
                raise NotTls("the ClientHello is too large")
            if len(message) >= _HANDSHAKE_HEADER + length:
                body = bytes(message[_HANDSHAKE_HEADER : _HANDSHAKE_HEADER + length])
                return ClientHello(_server_name(body))
        at = end


def _more(total: int) -> NeedMore:
    if total > MAX_HELLO_BYTES:
        raise NotTls("the ClientHello is too large")
    return NeedMore(total)


def _server_name(body: bytes) -> str | None:
    reader = _Reader(body)
    reader.take(2 + 32)  # legacy_version, random
    reader.take(reader.number(1))  # legacy_session_id
    reader.take(reader.number(2))  # cipher_suites
    reader.take(reader.number(1))  # legacy_compression_methods
    if reader.is_empty:
        return None
    extensions = _Reader(reader.take(reader.number(2)))
    while not extensions.is_empty:
        kind = extensions.number(2)
        content = extensions.take(extensions.number(2))
        if kind == _SERVER_NAME_EXTENSION:
            return _host_name(content)
    return None


def _host_name(content: bytes) -> str | None:
    outer = _Reader(content)
    names = _Reader(outer.take(outer.number(2)))
    while not names.is_empty:
        kind = names.number(1)
        name = names.take(names.number(2))
        if kind == _HOST_NAME:
            is_usable = 0 < len(name) <= 255 and name.isascii() and b"\0" not in name
            return name.decode("ascii").lower().removesuffix(".") if is_usable else None
    return None


class _Reader:
    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise NotTls("the ClientHello ends too early")
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))
