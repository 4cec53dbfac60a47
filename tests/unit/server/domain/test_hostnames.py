import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.domain.hostnames import (
    is_wildcard,
    label_error,
    label_under,
    normalise,
    normalise_binding,
    parse_label,
)
from moleport_server.errors import InvalidRequest

DOMAINS = ("tunnels.example.com", "example.net", "deep.example.net")


@pytest.mark.parametrize(
    ("given_host", "expected"),
    [
        pytest.param("shop.example.com", "shop.example.com", id="as it is"),
        pytest.param("Shop.EXAMPLE.com", "shop.example.com", id="upper case"),
        pytest.param("shop.example.com.", "shop.example.com", id="trailing dot"),
        pytest.param("shop.example.com:8443", "shop.example.com", id="port"),
        pytest.param("shop.example.com.:8443", "shop.example.com", id="dot and port"),
        pytest.param("shop.example.com:", "shop.example.com", id="empty port"),
        pytest.param("localhost", "localhost", id="single label"),
        pytest.param("xn--bcher-kva.example", "xn--bcher-kva.example", id="A-label"),
        pytest.param("a" * 63 + ".b", "a" * 63 + ".b", id="longest label"),
        pytest.param("127.0.0.1:80", "127.0.0.1", id="IPv4"),
    ],
)
def test_each_spelling_of_a_host_becomes_the_same_name(given_host: str, expected: str) -> None:
    assert normalise(given_host) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="root"),
        pytest.param("a..b", id="empty label"),
        pytest.param("shop.example.com..", id="two dots"),
        pytest.param("-shop.example.com", id="leading hyphen"),
        pytest.param("shop-.example.com", id="trailing hyphen"),
        pytest.param("sh_op.example.com", id="underscore"),
        pytest.param("shop example.com", id="space"),
        pytest.param("shop.example.com\n", id="newline"),
        pytest.param("shop.example.com:80\n", id="newline behind the port"),
        pytest.param("bücher.example", id="U-label"),
        pytest.param("\u212aelvin.example", id="sign that lowers to ASCII"),
        pytest.param("[::1]:80", id="IPv6"),
        pytest.param("*.example.com", id="wildcard"),
        pytest.param("shop.example.com:80:90", id="two ports"),
        pytest.param("user@shop.example.com", id="user"),
        pytest.param("a" * 64 + ".example.com", id="long label"),
        pytest.param(".".join(["a" * 50] * 5) + ".b", id="long name"),
    ],
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest):
        normalise(host)


def test_a_binding_may_be_a_wildcard_and_nothing_else_with_a_star() -> None:
    assert normalise_binding("*.Shop.example.com.") == "*.shop.example.com"
    assert normalise_binding("Shop.example.com") == "shop.example.com"
    assert is_wildcard("*.shop.example.com")
    for host in ("*", "*.", "*.*.example.com", "a*.example.com", "*." + ".".join(["a" * 50] * 5)):
        with pytest.raises(InvalidRequest):
            normalise_binding(host)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        pytest.param("ab", "subdomain 'ab' must be 3\u201363 characters long", id="short"),
        pytest.param("", "subdomain '' must be 3\u201363 characters long", id="empty"),
        pytest.param(
            "a" * 64, f"subdomain '{'a' * 64}' must be 3\u201363 characters long", id="long"
        ),
        pytest.param(
            "-", "subdomain '-' must be 3\u201363 characters long", id="length comes first"
        ),
        pytest.param(
            "é" * 32, f"subdomain '{'é' * 32}' must be 3\u201363 characters long", id="bytes"
        ),
        pytest.param(
            "-abc", "subdomain '-abc' must not start or end with a hyphen", id="hyphen before"
        ),
        pytest.param(
            "a_c-", "subdomain 'a_c-' must not start or end with a hyphen", id="hyphen comes second"
        ),
        pytest.param(
            "a_bc",
            "subdomain 'a_bc' may only contain letters, digits, and hyphens",
            id="underscore",
        ),
        pytest.param(
            "a.bc", "subdomain 'a.bc' may only contain letters, digits, and hyphens", id="dot"
        ),
        pytest.param(
            "\u212abc",
            "subdomain '\u212abc' may only contain letters, digits, and hyphens",
            id="kelvin sign",
        ),
    ],
)
def test_labels_are_refused_with_the_texts_that_agents_know(label: str, text: str) -> None:
    assert label_error(label) == text
    with pytest.raises(InvalidRequest) as caught:
        parse_label(label)
    assert str(caught.value) == text


def test_upper_case_labels_are_accepted_and_lowered() -> None:
    assert label_error("My-Shop1") is None
    assert parse_label("My-Shop1") == "my-shop1"


@given(st.text(max_size=80))
def test_an_accepted_label_is_a_host_name_label(label: str) -> None:
    if label_error(label) is None:
        assert normalise(f"{parse_label(label)}.example.com").startswith(label.lower() + ".")


@pytest.mark.parametrize(
    ("hostname", "label"),
    [
        pytest.param("shop.tunnels.example.com", "shop", id="first domain"),
        pytest.param("shop.example.net", "shop", id="second domain"),
        pytest.param("a.b.example.net", None, id="two labels"),
        pytest.param("example.net", None, id="the domain itself"),
        pytest.param("deep.example.net", None, id="a domain under another"),
        pytest.param("x.deep.example.net", "x", id="label under the deeper one"),
        pytest.param("*.example.net", None, id="wildcard"),
        pytest.param("shop.example.org", None, id="foreign"),
        pytest.param("localhost", None, id="no dot"),
    ],
)
def test_the_label_under_our_domains_is_found(hostname: str, label: str | None) -> None:
    assert label_under(hostname, DOMAINS) == label


@given(st.text(max_size=300))
def test_normalising_is_idempotent_or_refused(host: str) -> None:
    try:
        name = normalise(host)
    except InvalidRequest:
        return
    assert normalise(name) == name
