from ipaddress import ip_network

import pytest

from moleport_server.access.addresses import is_inside, limit_key, parse_address


@pytest.mark.parametrize(
    ("address", "key"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="IPv4 exactly"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="IPv4 on a dual-stack listener"),
        pytest.param("2001:db8:1:2:3::4", "2001:db8:1:2::/64", id="IPv6 by its /64"),
        pytest.param("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64", id="same network"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="zone"),
        pytest.param("", "", id="unix socket"),
    ],
)
def test_limits_count_by_what_a_subscriber_owns(address: str, key: str) -> None:
    assert limit_key(address) == key


def test_membership_sees_through_mapped_addresses_and_none_is_every_network() -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))

    assert is_inside("10.1.2.3", networks)
    assert is_inside("::ffff:10.1.2.3", networks)
    assert is_inside("2001:db8::1", networks)
    assert not is_inside("192.0.2.1", networks)
    assert not is_inside("", networks)
    assert not is_inside("10.1.2.3", ())
    assert is_inside("", None)


def test_what_is_no_address_is_none() -> None:
    assert parse_address("localhost") is None
