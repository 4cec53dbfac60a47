"""The server name, read from ClientHello messages of a real TLS stack and from broken ones."""

import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.edge.client_hello import (
    MAX_HELLO_BYTES,
    ClientHello,
    NeedMore,
    NotTls,
    parse_client_hello,
)


def real_hello(server_name: str | None, *, version: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def record(payload: bytes, kind: int = 22) -> bytes:
    return bytes([kind, 3, 1]) + len(payload).to_bytes(2) + payload


def split(hello: bytes, size: int) -> bytes:
    payload = hello[5:]
    return b"".join(record(payload[at : at + size]) for at in range(0, len(payload), size))


HELLO = real_hello("quick-otter.localhost")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(HELLO, "quick-otter.localhost", id="tls13"),
        pytest.param(
            real_hello("A.Example", version=ssl.TLSVersion.TLSv1_2), "a.example", id="tls12"
        ),
        pytest.param(real_hello(None), None, id="no-name"),
        pytest.param(real_hello("127.0.0.1"), None, id="an-address-is-no-name"),
        pytest.param(HELLO + b"early data", "quick-otter.localhost", id="trailing-bytes"),
        pytest.param(split(HELLO, 100), "quick-otter.localhost", id="many-records"),
        pytest.param(split(HELLO, 1), "quick-otter.localhost", id="tiny-records"),
    ],
)
def test_the_server_name_is_found(data: Any, name: Any) -> None:
    assert parse_client_hello(data) == ClientHello(name)


@pytest.mark.parametrize("data", [HELLO, split(HELLO, 50)], ids=["one-record", "many-records"])
def test_every_beginning_asks_for_more_and_never_for_too_much(data: Any) -> None:
    for size in range(len(data)):
        found = parse_client_hello(data[:size])

        assert isinstance(found, NeedMore)
        assert size < found.total <= len(data)


def with_name(name: bytes, kind: int = 0) -> bytes:
    entry = bytes([kind]) + len(name).to_bytes(2) + name
    extension = len(entry).to_bytes(2) + entry
    extensions = b"\0\0" + len(extension).to_bytes(2) + extension
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extensions).to_bytes(2) + extensions
    return record(b"\x01" + len(body).to_bytes(3) + body)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"A.Example.", "a.example"),
        (b"", None),
        (b"a\0b", None),
        ("ü".encode(), None),
        (b"x" * 256, None),
        (b"x" * 255, "x" * 255),
    ],
)
def test_a_name_that_cannot_be_used_counts_as_none(name: Any, expected: Any) -> None:
    assert parse_client_hello(with_name(name)) == ClientHello(expected)


def test_a_name_of_another_kind_counts_as_none() -> None:
    assert parse_client_hello(with_name(b"a.example", kind=1)) == ClientHello(None)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n", id="http"),
        pytest.param(b"\x80\x2e\x01\x03\x01", id="sslv2"),
        pytest.param(record(b"\x02" + bytes(40)), id="server-hello"),
        pytest.param(record(b""), id="empty-record"),
        pytest.param(b"\x16\x02\x00\x00\x05aaaaa", id="wrong-version"),
        pytest.param(b"\x16\x03\x01\xff\xff", id="oversize-record"),
        pytest.param(record(b"\x01\xff\xff\xff"), id="oversize-message"),
        pytest.param(record(b"\x01\0\0\x05" + bytes(5)), id="truncated-body"),
        pytest.param(HELLO[:50] + record(b"x", kind=23)[:5] + HELLO[55:60], id="short"),
    ],
)
def test_what_is_no_client_hello_is_refused_or_waited_for_within_bounds(data: Any) -> None:
    try:
        found = parse_client_hello(data)
    except NotTls:
        return
    assert isinstance(found, NeedMore)
    assert found.total <= MAX_HELLO_BYTES


@given(st.binary(max_size=200), st.integers(0, len(HELLO)))
def test_garbage_never_raises_anything_else(garbage: Any, keep: Any) -> None:
    try:
        found = parse_client_hello(HELLO[:keep] + garbage + HELLO[keep + len(garbage) :])
    except NotTls:
        return
    assert isinstance(found, (ClientHello, NeedMore))
