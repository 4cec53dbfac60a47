"""Values of settings as people write them."""

from pathlib import Path
from typing import Any

import pytest

from moleport_server.config import values
from moleport_server.config.values import CertificateFiles, Endpoint, PortRange, Secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("127.0.0.1:80", Endpoint("127.0.0.1", 80), id="v4"),
        pytest.param("[::1]:443", Endpoint("::1", 443), id="v6"),
        pytest.param(":8080", Endpoint("0.0.0.0", 8080), id="all-interfaces"),
        pytest.param("localhost:0", Endpoint("localhost", 0), id="name"),
        pytest.param("off", None, id="off"),
        pytest.param(False, None, id="false"),
    ],
)
def test_an_endpoint_is_read(text: Any, expected: Any) -> None:
    assert values.parse_endpoint(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8080", "::1:80", "host:65536", "host:-1", "a b:80", "[1.2.3.4]:80", 80, None]
)
def test_a_wrong_endpoint_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="host:port"):
        values.parse_endpoint(text)


@pytest.mark.parametrize("endpoint", [Endpoint("::1", 1), Endpoint("10.0.0.1", 65535)], ids=str)
def test_an_endpoint_is_shown_as_it_is_written(endpoint: Any) -> None:
    assert values.parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        pytest.param("1.1.1.1:80", "1.1.1.1:80", True, id="same"),
        pytest.param("0.0.0.0:80", "1.1.1.1:80", True, id="wildcard"),
        pytest.param("[::]:80", "1.1.1.1:80", True, id="dual-stack"),
        pytest.param("1.1.1.1:80", "1.1.1.2:80", False, id="other-address"),
        pytest.param("1.1.1.1:80", "1.1.1.1:81", False, id="other-port"),
        pytest.param("[::1]:80", "127.0.0.1:80", False, id="other-family"),
        pytest.param("localhost:80", "127.0.0.1:80", True, id="a-name-may-be-anything"),
        pytest.param("1.1.1.1:0", "1.1.1.1:0", False, id="any-port"),
    ],
)
def test_endpoints_overlap_when_both_cannot_be_bound(first: Any, second: Any, overlap: Any) -> None:
    one, two = values.parse_endpoint(first), values.parse_endpoint(second)

    assert one is not None
    assert two is not None
    assert one.overlaps(two) is overlap
    assert two.overlaps(one) is overlap


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20000-20099", (20000, 20099)), ("5-5", (5, 5)), ("80", (80, 80)), (80, (80, 80))],
)
def test_a_port_range_is_read(text: Any, expected: Any) -> None:
    found = values.parse_port_range(text)

    assert (found.first, found.last) == expected
    assert len(found) == expected[1] - expected[0] + 1
    assert expected[1] in found
    assert expected[1] + 1 not in found


@pytest.mark.parametrize("text", ["", "9-5", "0-5", "1-65536", "a-b", True, 1.5, "5-"])
def test_a_wrong_port_range_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="first-last"):
        values.parse_port_range(text)


def test_a_secret_shows_itself_only_when_revealed() -> None:
    secret = values.parse_secret("hunter2")

    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {secret!s:>20}"
    assert secret == Secret("hunter2")
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret != Secret("other")


@pytest.mark.parametrize("text", ["", " ", "a b", "a\n", "ü", 5, None])
def test_an_unusable_secret_is_refused_without_repeating_it(text: Any) -> None:
    with pytest.raises(ValueError, match=r"empty|visible ASCII") as caught:
        values.parse_secret(text)

    assert text in ("", " ", None) or str(text) not in str(caught.value)


def test_domains_are_normalised() -> None:
    assert values.parse_domains("T.Example.COM., localhost") == ("t.example.com", "localhost")


@pytest.mark.parametrize("text", ["", [], "a,a.", "-a", "a..b", "x" * 64, ["*.a"], 5, [5]])
def test_wrong_domains_are_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"domain|list"):
        values.parse_domains(text)


def test_networks_are_read_from_text_and_lists() -> None:
    assert [str(network) for network in values.parse_networks("10.0.0.0/8, ::1")] == [
        "10.0.0.0/8",
        "::1/128",
    ]
    with pytest.raises(ValueError, match="host bits"):
        values.parse_networks(["10.0.0.1/8"])


@pytest.mark.parametrize("text", ["http://", "ftp://a", "https://a/b", "https://u@a", "a", 5])
def test_a_wrong_base_url_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="base URL"):
        values.parse_url(text)


def test_a_base_url_loses_its_trailing_slash() -> None:
    assert values.parse_url("https://a.example:4040/") == "https://a.example:4040"
    assert values.parse_url("") is None


@pytest.mark.parametrize(
    ("text", "expected"), [("A.b.", "a.b"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("", None)]
)
def test_a_host_is_read(text: Any, expected: Any) -> None:
    assert values.parse_host(text) == expected


@pytest.mark.parametrize("text", ["https://a", "a:80", "a b", 5])
def test_a_wrong_host_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="host name"):
        values.parse_host(text)


@pytest.mark.parametrize("value", [Path("x"), "x"], ids=["path", "text"])
def test_a_path_is_read(value: Any) -> None:
    assert values.parse_path(value) == Path("x")


@pytest.mark.parametrize("value", ["", "a\0b", 5])
def test_a_wrong_path_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="path"):
        values.parse_path(value)


@pytest.mark.parametrize(
    "value",
    ["a.pem:a.key", [{"certificate_file": "a.pem", "key_file": "a.key"}]],
    ids=["text", "tables"],
)
def test_certificates_are_read(value: Any) -> None:
    files = CertificateFiles(certificate_file=Path("a.pem"), key_file=Path("a.key"))

    assert values.parse_certificates(value) == (files,)


@pytest.mark.parametrize("value", ["a.pem", [{"key_file": "a"}], [5], 5, [{"x": 1, "key_file": 2}]])
def test_incomplete_certificates_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="certificate_file and key_file"):
        values.parse_certificates(value)


def test_a_port_range_is_shown_as_it_is_written() -> None:
    assert values.parse_port_range(str(PortRange(1, 2))) == PortRange(1, 2)
