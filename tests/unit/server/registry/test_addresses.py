import pytest

from moleport_server.registry.addresses import PublicAddresses


@pytest.mark.parametrize(
    ("scheme", "port", "url"),
    [
        ("https", 443, "https://shop.example.com"),
        ("https", 8443, "https://shop.example.com:8443"),
        ("http", 80, "http://shop.example.com"),
        ("http", 443, "http://shop.example.com:443"),
    ],
)
def test_a_port_is_left_out_only_if_it_is_the_schemes_default(
    scheme: str, port: int, url: str
) -> None:
    addresses = PublicAddresses(scheme=scheme, port=port, tcp_host="example.com")

    assert addresses.http_url("shop.example.com") == url


def test_a_tcp_tunnel_is_named_by_host_and_port() -> None:
    addresses = PublicAddresses(scheme="https", port=443, tcp_host="tcp.example.com")

    assert addresses.tcp_url(20_001) == "tcp://tcp.example.com:20001"


@pytest.mark.parametrize(
    ("scheme", "port", "https_port", "url"),
    [
        ("http", 8080, 443, "https://shop.example.com"),
        ("http", 8080, 8443, "https://shop.example.com:8443"),
        ("http", 80, None, "http://shop.example.com"),
        ("https", 443, None, "https://shop.example.com"),
    ],
)
def test_who_asks_for_https_gets_it_where_there_is_any(
    scheme: str, port: int, https_port: int | None, url: str
) -> None:
    addresses = PublicAddresses(
        scheme=scheme, port=port, tcp_host="example.com", https_port=https_port
    )

    assert addresses.https_url("shop.example.com") == url


@pytest.mark.parametrize(
    ("hostname", "port", "url"),
    [
        pytest.param("shop.example.com", None, "https://shop.example.com", id="name"),
        pytest.param(None, 20_001, "tcp://example.com:20001", id="port"),
        pytest.param(None, None, "", id="container port alone"),
    ],
)
def test_a_tunnel_has_the_url_of_its_address(
    hostname: str | None, port: int | None, url: str
) -> None:
    addresses = PublicAddresses(scheme="https", port=443, tcp_host="example.com")

    assert addresses.url(hostname, port) == url
