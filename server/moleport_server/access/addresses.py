"""Addresses of peers, as limits and CIDR rules see them.

An IPv4 peer on a dual-stack listener shows up as `::ffff:192.0.2.1`; it is IPv4 here. Limits count
an IPv6 peer by its /64, because that is the least that one subscriber has: whoever owns a /64 has
more addresses than any table of limits.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from moleport_server.domain.tunnel import IPNetwork, VisitorRules

_CACHED: Final = 4096
"""The same peers come again and again; parsing costs a microsecond, on each request."""
_INTERFACE_BITS: Final = 64


@lru_cache(maxsize=_CACHED)
def parse_address(address: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address, or None if the peer has none (a unix socket)."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or parsed
    return parsed


@lru_cache(maxsize=_CACHED)
def limit_key(address: str) -> str:
    """Return what stands for the peer in limits: IPv4 in full, IPv6 by its /64."""
    parsed = parse_address(address)
    if parsed is None:
        return address
    if isinstance(parsed, IPv6Address):
        prefix = int(parsed) >> _INTERFACE_BITS << _INTERFACE_BITS
        return f"{IPv6Address(prefix)}/64"
    return str(parsed)


def is_inside(address: str, networks: Iterable[IPNetwork] | None) -> bool:
    """Whether the address lies in one of the networks; None is every network.

    A peer without an IP address is in none.
    """
    if networks is None:
        return True
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def is_admitted(rules: VisitorRules, address: str) -> bool:
    """Whether the rules let visitors from this IP address in; what is denied comes first.

    A peer without an IP address is admitted only where no networks are told apart.
    """
    if rules.denied_cidrs and (
        parse_address(address) is None or is_inside(address, rules.denied_cidrs)
    ):
        return False
    return is_inside(address, rules.allowed_cidrs)
