import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.edge.forwarding import (
    HOP_BY_HOP,
    IDEMPOTENT,
    REQUEST_FIELDS,
    append_forwarded,
    hostname_of,
    is_host,
    is_request_id,
    split_absolute,
    tokens,
    without_named,
)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_fields_of_one_connection_are_not_simply_passed_on(name: bytes) -> None:
    assert name in REQUEST_FIELDS


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"], ids=bytes.decode
)
def test_idempotent_methods_may_be_sent_again(method: bytes) -> None:
    assert method in IDEMPOTENT


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"get", b"PURGE"])
def test_other_methods_may_not(method: bytes) -> None:
    assert method not in IDEMPOTENT


@pytest.mark.parametrize(
    ("host", "name"),
    [
        pytest.param(b"shop.example.com", "shop.example.com", id="plain"),
        pytest.param(b"Shop.EXAMPLE.com", "shop.example.com", id="case"),
        pytest.param(b"shop.example.com:8080", "shop.example.com", id="port"),
        pytest.param(b"shop.example.com.", "shop.example.com", id="trailing dot"),
        pytest.param(b"shop.example.com.:443", "shop.example.com", id="dot and port"),
        pytest.param(b"shop.example.com:", "shop.example.com", id="empty port"),
        pytest.param(b"[2001:db8::1]:80", "[2001:db8::1]", id="IPv6"),
        pytest.param(b"192.0.2.1", "192.0.2.1", id="IPv4"),
    ],
)
def test_a_host_field_names_one_binding(host: bytes, name: str) -> None:
    assert is_host(host)
    assert hostname_of(host) == name


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"user@example.com", id="user information"),
        pytest.param(b"a.com, b.com", id="list with a space"),
        pytest.param(b"a.com/path", id="path"),
        pytest.param(b"a.com?x", id="query"),
        pytest.param(b"a.com#x", id="fragment"),
        pytest.param(b"a.com:80:80", id="two ports"),
        pytest.param(b"a.com:eighty", id="port of letters"),
        pytest.param(b"a.com:123456", id="port too long"),
        pytest.param(b"[::1", id="open bracket"),
        pytest.param(b"a b", id="space"),
        pytest.param(b"a\0b", id="NUL"),
        pytest.param("bücher.example".encode(), id="not ASCII"),
    ],
)
def test_what_is_no_authority_is_no_host(host: bytes) -> None:
    assert not is_host(host)


@given(st.binary(max_size=64))
def test_every_accepted_host_has_a_name(host: bytes) -> None:
    if is_host(host):
        name = hostname_of(host)
        assert name is not None
        assert name == name.lower()


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        pytest.param(b"abc-123", True, id="plain"),
        pytest.param(b"x" * 128, True, id="longest"),
        pytest.param(b"x" * 129, False, id="too long"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b"a b", False, id="space"),
        pytest.param(b"a\x7f", False, id="control"),
        pytest.param(b"\xc3\xa9", False, id="not ASCII"),
    ],
)
def test_request_ids_of_visitors_are_kept_if_harmless(value: bytes, is_kept: bool) -> None:
    assert is_request_id(value) is is_kept


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        pytest.param(b"http://a.com/x?y", (b"a.com", b"/x?y"), id="path"),
        pytest.param(b"HTTPS://a.com:8443/x", (b"a.com:8443", b"/x"), id="scheme in capitals"),
        pytest.param(b"http://a.com", (b"a.com", b"/"), id="no path"),
        pytest.param(b"http://a.com?x=1", (b"a.com", b"/?x=1"), id="query only"),
        pytest.param(b"/x", None, id="origin form"),
        pytest.param(b"a.com:443", None, id="authority form"),
        pytest.param(b"ftp://a.com/", None, id="another scheme"),
        pytest.param(b"*", None, id="asterisk"),
    ],
)
def test_an_absolute_target_is_split(target: bytes, parts: tuple[bytes, bytes] | None) -> None:
    assert split_absolute(target) == parts


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"close", {b"close"}),
        (b"Keep-Alive, X-Trace", {b"keep-alive", b"x-trace"}),
        (b" , ,\tupgrade ,", {b"upgrade"}),
        (b"", set()),
    ],
)
def test_connection_options_are_a_list_without_case(value: bytes, members: set[bytes]) -> None:
    assert tokens(value) == members


def test_fields_that_connection_names_are_dropped() -> None:
    lines = [b"X-Hop: 1\r\n", b"X-Hopper: 2\r\n", b"x-hop: 3\r\n", b"Keep-Alive: 4\r\n"]

    kept = without_named(lines, frozenset({b"x-hop", b"close", b"keep-alive", b"upgrade"}))

    assert kept == [b"X-Hopper: 2\r\n", b"Keep-Alive: 4\r\n"]


def test_connection_options_without_field_names_cost_nothing() -> None:
    lines = [b"X-Hop: 1\r\n"]

    assert without_named(lines, frozenset({b"close", b"keep-alive"})) is lines


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"192.0.2.1"),
        (b"", b"192.0.2.1"),
        (b"198.51.100.1", b"198.51.100.1, 192.0.2.1"),
    ],
)
def test_forwarded_addresses_are_appended(before: bytes | None, after: bytes) -> None:
    assert append_forwarded(before, b"192.0.2.1") == after
