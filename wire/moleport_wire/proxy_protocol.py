"""The PROXY protocol, versions 1 and 2: who really connected, told by a load balancer in front.

A pure parser and serializer: the edge reads a header from the peers that it trusts, and sends one
to a local service that asked for it. Follows the specification that comes with HAProxy
(`proxy-protocol.txt`, 2020/03/05). Type-length-value fields of version 2 are skipped, and addresses
of families other than TCP over IPv4 and IPv6 count as unknown: the caller then uses the addresses
of the connection itself, as the specification orders for `UNKNOWN` and `LOCAL`.

Believe a header only when the peer is trusted: anybody can write one.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, NamedTuple

from moleport_wire.errors import WireError

MAX_V1_BYTES: Final = 107
"""The longest line of version 1 with its CRLF."""
MAX_V2_BYTES: Final = 536
"""16 bytes and 520 of addresses and fields: fits the smallest TCP segment, so one read gets it."""

_V1_START: Final = b"PROXY "
_V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEADER: Final = struct.Struct("!12sBBH")
_V2_TCP4: Final = struct.Struct("!4s4sHH")
_V2_TCP6: Final = struct.Struct("!16s16sHH")
_FAMILY_TCP4: Final = 0x11
_FAMILY_TCP6: Final = 0x21
_V1_TCP: Final = re.compile(
    rb"PROXY (TCP[46]) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})"
)


class ProxyHeaderError(WireError):
    """The bytes are no PROXY header that may be accepted; close the connection."""


class Endpoint(NamedTuple):
    """One end of the connection that the header tells of."""

    host: str
    """An IP address as text."""
    port: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """A complete header."""

    source: Endpoint | None
    """Who connected; None when the sender does not know or speaks for itself."""
    destination: Endpoint | None
    """Where it connected to; None together with `source`."""
    consumed: int
    """Length of the header: what follows belongs to the connection."""


def parse(buffer: bytes | bytearray) -> Parsed | None:
    """Parse a header at the start of `buffer`, or return None while it is incomplete.

    A connection that begins otherwise is told apart at its first wrong byte, and a caller that
    waits for more never holds more than `MAX_V2_BYTES`. The wait itself needs a deadline.

    Raises:
        ProxyHeaderError: there is no header, or it is malformed or oversize.
    """
    start = bytes(buffer[: len(_V2_SIGNATURE)])
    if _V2_SIGNATURE.startswith(start):
        return None if len(start) < len(_V2_SIGNATURE) else _parse_v2(buffer)
    if _V1_START.startswith(start) or start.startswith(_V1_START):
        return _parse_v1(bytes(buffer[:MAX_V1_BYTES]))
    raise ProxyHeaderError("the connection does not begin with a PROXY header")


def serialize(
    version: Literal[1, 2], source: Endpoint | None, destination: Endpoint | None
) -> bytes:
    """Return a header; without both addresses it says `UNKNOWN` (1) or `LOCAL` (2).

    Addresses of different families are both written as IPv6.

    Raises:
        ValueError: a host is no IP address, or a port is out of range.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _V2_HEADER.pack(_V2_SIGNATURE, 0x20, 0, 0)
    # A zone (`fe80::1%eth0`) means nothing on another machine.
    first, second = (ip_address(end.host.partition("%")[0]) for end in (source, destination))
    if first.version != second.version:
        first, second = _as_v6(first), _as_v6(second)
    for port in (source.port, destination.port):
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port {port} is out of range")
    if version == 1:
        line = f"PROXY TCP{first.version} {first} {second} {source.port} {destination.port}\r\n"
        return line.encode()
    family, addresses = (_FAMILY_TCP4, _V2_TCP4) if first.version == 4 else (_FAMILY_TCP6, _V2_TCP6)
    return _V2_HEADER.pack(_V2_SIGNATURE, 0x21, family, addresses.size) + addresses.pack(
        first.packed, second.packed, source.port, destination.port
    )


def _parse_v1(line: bytes) -> Parsed | None:
    end = line.find(b"\r\n")
    if end < 0:
        if len(line) == MAX_V1_BYTES:
            raise ProxyHeaderError(f"the PROXY line is longer than {MAX_V1_BYTES} bytes")
        return None
    line, consumed = line[:end], end + 2
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Parsed(None, None, consumed)
    match = _V1_TCP.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("the PROXY line is malformed")
    family = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        hosts = [str(family(text.decode())) for text in match.group(2, 3)]
    except ValueError as error:
        raise ProxyHeaderError("the PROXY line has a malformed address") from error
    ports = [int(text) for text in match.group(4, 5)]
    if max(ports) > 0xFFFF:
        raise ProxyHeaderError("the PROXY line has a port out of range")
    return Parsed(Endpoint(hosts[0], ports[0]), Endpoint(hosts[1], ports[1]), consumed)


def _parse_v2(buffer: bytes | bytearray) -> Parsed | None:
    # Version and command come first: a wrong one is told without waiting for the rest.
    if len(buffer) > 12 and buffer[12] not in {0x20, 0x21}:
        raise ProxyHeaderError("the PROXY header has an unknown version or command")
    if len(buffer) < _V2_HEADER.size:
        return None
    _, command, family, length = _V2_HEADER.unpack_from(buffer)
    consumed = _V2_HEADER.size + length
    if consumed > MAX_V2_BYTES:
        raise ProxyHeaderError(f"the PROXY header is longer than {MAX_V2_BYTES} bytes")
    if len(buffer) < consumed:
        return None
    layout = {_FAMILY_TCP4: _V2_TCP4, _FAMILY_TCP6: _V2_TCP6}.get(family)
    if command == 0x20 or layout is None:
        return Parsed(None, None, consumed)
    if length < layout.size:
        raise ProxyHeaderError("the PROXY header is too short for its addresses")
    source, destination, source_port, destination_port = layout.unpack_from(buffer, _V2_HEADER.size)
    return Parsed(
        Endpoint(str(ip_address(source)), source_port),
        Endpoint(str(ip_address(destination)), destination_port),
        consumed,
    )


def _as_v6(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(f"::ffff:{address}")
