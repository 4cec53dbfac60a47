import struct
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_wire.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    Endpoint,
    Parsed,
    ProxyHeaderError,
    parse,
    serialize,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = (Endpoint("192.0.2.1", 56324), Endpoint("198.51.100.7", 443))
V6 = (Endpoint("2001:db8::1", 1), Endpoint("2001:db8::2", 65535))
V4_BYTES = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


CANONICAL = [
    pytest.param(1, V4, b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", id="v1 IPv4"),
    pytest.param(1, V6, b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", id="v1 IPv6"),
    pytest.param(1, (None, None), b"PROXY UNKNOWN\r\n", id="v1 unknown"),
    pytest.param(2, V4, v2(0x21, 0x11, V4_BYTES), id="v2 IPv4"),
    pytest.param(
        2,
        V6,
        v2(
            0x21,
            0x21,
            bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
            + struct.pack("!HH", 1, 65535),
        ),
        id="v2 IPv6",
    ),
    pytest.param(2, (None, None), v2(0x20, 0, b""), id="v2 local"),
]
TOLERATED = [
    pytest.param((None, None), b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", id="v1 unknown with text"),
    pytest.param(V4, v2(0x21, 0x11, V4_BYTES + b"\x03\x00\x04abcd"), id="v2 with a field"),
    pytest.param((None, None), v2(0x20, 0x11, V4_BYTES), id="v2 local with addresses"),
    pytest.param((None, None), v2(0x21, 0x12, V4_BYTES), id="v2 datagram"),
    pytest.param((None, None), v2(0x21, 0x31, b"\0" * 216), id="v2 unix sockets"),
    pytest.param((None, None), v2(0x21, 0x00, b""), id="v2 unspecified"),
    pytest.param(V4, v2(0x21, 0x11, V4_BYTES + b"\0" * 508), id="v2 longest"),
]
REFUSED = [
    pytest.param(b"GET / HTTP/1.1\r\n", "does not begin", id="plain HTTP"),
    pytest.param(b"\x16\x03\x01", "does not begin", id="plain TLS"),
    pytest.param(b"\r\n\r\nX", "does not begin", id="almost v2"),
    pytest.param(b"PROXIE", "does not begin", id="almost v1"),
    pytest.param(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2" + b" " * 90, "longer than", id="v1 endless"),
    pytest.param(b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "malformed", id="v1 too few"),
    pytest.param(b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "malformed", id="v1 two spaces"),
    pytest.param(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "malformed", id="v1 space at the end"),
    pytest.param(b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "malformed", id="v1 unknown family"),
    pytest.param(b"PROXY UNKNOWNX\r\n", "malformed", id="v1 unknown with a tail"),
    pytest.param(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "out of range", id="v1 port"),
    pytest.param(b"PROXY TCP4 ::1 ::2 1 2\r\n", "malformed address", id="v1 wrong family"),
    pytest.param(b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "malformed address", id="v1 v4 as v6"),
    pytest.param(b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n", "malformed address", id="v1 octet"),
    pytest.param(SIGNATURE + b"\x11", "unknown version", id="v2 version 1"),
    pytest.param(SIGNATURE + b"\x22", "unknown version", id="v2 command 2"),
    pytest.param(v2(0x21, 0x11, V4_BYTES[:-1]), "too short", id="v2 short IPv4"),
    pytest.param(v2(0x21, 0x21, b"\0" * 35), "too short", id="v2 short IPv6"),
    pytest.param(SIGNATURE + b"\x21\x11\x02\x09", "longer than", id="v2 oversize before its body"),
]


@pytest.mark.parametrize(("version", "ends", "text"), CANONICAL)
def test_serializing_gives_the_canonical_bytes(
    version: Literal[1, 2], ends: tuple[Endpoint | None, Endpoint | None], text: bytes
) -> None:
    assert serialize(version, *ends) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [pytest.param(*row.values[1:], id=row.id) for row in CANONICAL] + TOLERATED,
)
def test_a_header_is_parsed_whole_byte_by_byte_and_with_bytes_behind(
    ends: tuple[Endpoint | None, Endpoint | None], text: bytes
) -> None:
    expected = Parsed(*ends, len(text))

    assert parse(text) == expected
    assert parse(bytearray(text + b"GET / HTTP/1.1\r\n\r\n")) == expected
    for length in range(len(text)):
        assert parse(text[:length]) is None


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_anything_else_is_refused_with_its_reason(text: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        parse(text)


def test_mixed_families_are_written_as_ipv6_and_zones_are_dropped() -> None:
    source, destination = Endpoint("fe80::1%eth0", 5), Endpoint("192.0.2.9", 6)

    for header in (serialize(1, source, destination), serialize(2, source, destination)):
        parsed = parse(header)

        assert parsed is not None
        assert parsed.source == Endpoint("fe80::1", 5)
        assert parsed.destination is not None
        assert parsed.destination.host.startswith("::ffff:")


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(Endpoint("localhost", 1), id="a name"),
        pytest.param(Endpoint("192.0.2.1", 65536), id="port too high"),
        pytest.param(Endpoint("192.0.2.1", -1), id="port negative"),
    ],
)
def test_addresses_that_no_header_can_hold_are_refused(source: Endpoint) -> None:
    with pytest.raises(ValueError, match=r"range|IPv4"):
        serialize(2, source, V4[1])


endpoints = st.builds(Endpoint, st.ip_addresses().map(str), st.integers(0, 0xFFFF))


@given(st.sampled_from([1, 2]), endpoints, endpoints, st.binary(max_size=20))
def test_whatever_is_serialized_parses_back(
    version: Literal[1, 2], source: Endpoint, destination: Endpoint, tail: bytes
) -> None:
    text = serialize(version, source, destination)
    parsed = parse(text + tail)

    assert len(text) <= (MAX_V1_BYTES if version == 1 else MAX_V2_BYTES)
    assert parsed is not None
    assert parsed.consumed == len(text)
    if (":" in source.host) == (":" in destination.host):
        assert (parsed.source, parsed.destination) == (source, destination)


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda b: SIGNATURE + b)))
def test_garbage_gives_a_header_more_wanted_or_the_documented_error(text: bytes) -> None:
    try:
        parsed = parse(text)
    except ProxyHeaderError:
        return
    if parsed is None:
        assert len(text) < MAX_V2_BYTES
    else:
        assert 0 < parsed.consumed <= min(len(text), MAX_V2_BYTES)
