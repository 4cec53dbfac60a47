from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.domain.policy import (
    AUTH_CONFLICT,
    AUTH_UNRESOLVED,
    Policy,
    allowed_hostnames,
    is_hostname_allowed,
    merge,
    nothing_allowed,
)
from moleport_server.domain.scope import covers, matches
from moleport_server.domain.token import Effective, Grant, Limits, Token
from moleport_server.domain.tunnel import BasicCredential, TunnelProtocol

DOMAINS = ("tunnels.example.com",)
ANN = BasicCredential(user="ann", password_hash="$2b$10$hash-of-ann")
BOB = BasicCredential(user="bob", password_hash="$2b$10$hash-of-bob")


def net(*texts: str) -> tuple[Any, ...]:
    return tuple(ip_network(text) for text in texts)


def token(grant: Grant | None = None, limits: Limits | None = None) -> Token:
    return Token(
        id="t-1", label="ci", created_at=0, grant=grant or Grant(), limits=limits or Limits()
    )


NAMES = [
    "shop",
    "till",
    "shop-*",
    "*-eu",
    "?hop",
    "*.tunnels.example.com",
    "shop.tunnels.example.com",
    "a.example.org",
    "*.example.org",
]
HOSTS = [
    "shop.tunnels.example.com",
    "till.tunnels.example.com",
    "shop-eu.tunnels.example.com",
    "a-eu.tunnels.example.com",
    "a.example.org",
    "b.example.org",
    "*.example.org",
    "*.tunnels.example.com",
]
# Whole values from pools: drawing every element of a policy by itself takes seconds per example.
pools: dict[str, list[Any]] = {
    "protocols": [None, (), (TunnelProtocol.HTTP,), (TunnelProtocol.TCP,), tuple(TunnelProtocol)],
    "hostnames": [None, (), *((name,) for name in NAMES), ("shop", "*-eu"), tuple(NAMES)],
    "tcp_ports": [None, (), ((0, 9),), ((5, 20),), ((3, 3), (7, 12)), ((8, 8),)],
    "networks": [
        None,
        (),
        net("0.0.0.0/0"),
        net("0.0.0.0/2"),
        net("16.0.0.0/4", "128.0.0.0/1"),
        net("64.0.0.0/3", "::/0"),
        net("240.0.0.0/4"),
    ],
    "users": [None, None, (), (ANN,), (ANN, BOB)],
}
numbers = st.none() | st.integers(1, 9)
limit_values = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(Limits.__dataclass_fields__, st.integers(1, 9))
).map(lambda given: Limits(**given))
policies = st.builds(
    Policy,
    id=st.just("p"),
    protocols=st.sampled_from(pools["protocols"]),
    hostnames=st.sampled_from(pools["hostnames"]),
    tcp_ports=st.sampled_from(pools["tcp_ports"]),
    agent_cidrs=st.sampled_from(pools["networks"]),
    client_cidrs=st.sampled_from(pools["networks"]),
    denied_client_cidrs=st.sampled_from(pools["networks"][1:]),
    limits=limit_values,
    max_lifetime_seconds=numbers,
    max_tokens=numbers,
    requires_rotation=st.booleans(),
    requires_tls=st.booleans(),
    basic_auth=st.sampled_from(pools["users"]),
    is_auth_unresolved=st.booleans(),
)
tokens = st.builds(
    token,
    st.builds(
        Grant,
        protocols=st.sampled_from(pools["protocols"]),
        hostnames=st.sampled_from(pools["hostnames"]),
        tcp_ports=st.sampled_from(pools["tcp_ports"]),
        agent_cidrs=st.sampled_from(pools["networks"]),
    ),
    limit_values,
)


def inside(address: IPv4Address, allowed: Iterable[Any] | None) -> bool:
    return allowed is None or any(address in network for network in allowed)


def is_at_most(value: float | None, bound: float | None) -> bool:
    return bound is None or (value is not None and value <= bound)


def burst_of(limits: Limits) -> float | None:
    return limits.burst if limits.burst is not None else limits.requests_per_second


def assert_not_larger(after: Effective, before: Effective) -> None:
    """Compare what is allowed, question by question."""
    for protocol in TunnelProtocol:
        if after.grant.protocols is None or protocol in after.grant.protocols:
            assert before.grant.protocols is None or protocol in before.grant.protocols
    for host in HOSTS:
        if is_hostname_allowed(after, host, DOMAINS):
            assert is_hostname_allowed(before, host, DOMAINS)
    for port in range(21):
        allowed = [
            ports is None or any(first <= port <= last for first, last in ports)
            for ports in (after.grant.tcp_ports, before.grant.tcp_ports)
        ]
        assert allowed[1] or not allowed[0]
    for number in range(16):
        address = IPv4Address(number << 28)
        if inside(address, after.grant.agent_cidrs):
            assert inside(address, before.grant.agent_cidrs)
        if inside(address, after.client_cidrs):
            assert inside(address, before.client_cidrs)
        if inside(address, before.denied_client_cidrs):
            assert inside(address, after.denied_client_cidrs)
    for name in Limits.__dataclass_fields__:
        if name != "burst":
            assert is_at_most(getattr(after.limits, name), getattr(before.limits, name)), name
    assert is_at_most(burst_of(after.limits), burst_of(before.limits))
    assert is_at_most(after.max_lifetime_seconds, before.max_lifetime_seconds)
    assert is_at_most(after.max_tokens, before.max_tokens)
    assert after.requires_rotation or not before.requires_rotation
    assert after.requires_tls or not before.requires_tls
    if before.http_denied is not None:
        assert after.http_denied is not None
    if before.basic_auth is not None:
        assert after.http_denied is not None or after.basic_auth == before.basic_auth


@given(tokens, st.lists(policies, max_size=3), policies)
def test_attaching_a_policy_never_enlarges_what_is_allowed(
    some_token: Token, attached: list[Policy], another: Policy
) -> None:
    assert_not_larger(merge(some_token, [*attached, another]), merge(some_token, attached))


@given(tokens, st.lists(policies, min_size=2, max_size=3))
def test_the_order_of_policies_does_not_matter(some_token: Token, attached: list[Policy]) -> None:
    results = {merge(some_token, order) for order in permutations(attached)}

    assert len(results) == 1


@given(tokens, st.lists(policies, min_size=1, max_size=3))
def test_a_policy_twice_is_a_policy_once(some_token: Token, attached: list[Policy]) -> None:
    assert merge(some_token, [*attached, attached[0]]) == merge(some_token, attached)


@given(tokens, st.lists(policies, max_size=3), st.sampled_from(HOSTS))
def test_what_is_shown_of_host_names_leaves_out_nothing_that_is_allowed(
    some_token: Token, attached: list[Policy], host: str
) -> None:
    effective = merge(some_token, attached)

    shown = allowed_hostnames(effective, DOMAINS)

    if is_hostname_allowed(effective, host, DOMAINS):
        assert matches(shown, host, DOMAINS)


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(HOSTS))
def test_a_pattern_that_covers_another_matches_all_that_it_matches(
    outer: str, inner: str, host: str
) -> None:
    if covers(outer, inner, DOMAINS) and not host.startswith("*."):
        assert matches((outer,), host, DOMAINS) or not matches((inner,), host, DOMAINS)


def test_without_policies_the_token_holds_as_it_is() -> None:
    plain = token(Grant(hostnames=("shop",)), Limits(max_tunnels=3))

    assert merge(plain, ()) == Effective(grant=plain.grant, limits=plain.limits)


@pytest.mark.parametrize(
    ("mine", "bounds", "shown"),
    [
        (None, [], None),
        (None, [("shop",)], ("shop.tunnels.example.com",)),
        (None, [("*.example.org", "till")], ("till.tunnels.example.com",)),
        (("shop-*",), [("shop-eu", "till")], ("shop-eu.tunnels.example.com",)),
        (("a.example.org", "shop"), [("*.example.org",)], ("a.example.org",)),
        (("shop",), [("till",)], ()),
        (("shop",), [()], ()),
        ((), [("shop",)], ()),
        (("shop-*",), [("*-eu",)], ("shop-*.tunnels.example.com",)),
        (("shop-*",), [("shop-?",), ("shop-1",)], ("shop-1.tunnels.example.com",)),
    ],
)
def test_the_shown_host_names_are_what_grant_and_bounds_share(
    mine: tuple[str, ...] | None,
    bounds: list[tuple[str, ...]],
    shown: tuple[str, ...] | None,
) -> None:
    attached = [Policy(id="p", hostnames=bound) for bound in bounds]

    effective = merge(token(Grant(hostnames=mine)), attached)

    assert allowed_hostnames(effective, DOMAINS) == shown


def test_a_policy_grants_no_name_that_the_token_does_not_have() -> None:
    effective = merge(
        token(), [Policy(id="p", hostnames=("*.example.org", "*.tunnels.example.com"))]
    )

    assert not is_hostname_allowed(effective, "a.example.org", DOMAINS)
    assert not is_hostname_allowed(effective, "*.tunnels.example.com", DOMAINS)
    assert is_hostname_allowed(effective, "shop.tunnels.example.com", DOMAINS)


def test_lists_intersect_and_denials_unite() -> None:
    first = Policy(
        id="a",
        protocols=(TunnelProtocol.HTTP, TunnelProtocol.TCP),
        tcp_ports=((20_000, 20_020),),
        agent_cidrs=net("10.0.0.0/8"),
        client_cidrs=net("192.0.2.0/24"),
        denied_client_cidrs=net("192.0.2.7/32"),
    )
    second = Policy(
        id="b",
        protocols=(TunnelProtocol.TCP,),
        tcp_ports=((20_010, 20_030), (20_040, 20_040)),
        agent_cidrs=net("10.1.0.0/16", "2001:db8::/32"),
        client_cidrs=net("192.0.0.0/16"),
        denied_client_cidrs=net("192.0.2.8/32"),
    )

    effective = merge(token(Grant(tcp_ports=((20_000, 20_015),))), [first, second])

    assert effective.grant == Grant(
        protocols=(TunnelProtocol.TCP,),
        tcp_ports=((20_010, 20_015),),
        agent_cidrs=net("10.1.0.0/16"),
    )
    assert effective.client_cidrs == net("192.0.2.0/24")
    assert effective.denied_client_cidrs == net("192.0.2.7/32", "192.0.2.8/32")


@pytest.mark.parametrize(
    "field",
    [
        "max_tunnels",
        "max_agents",
        "max_connections",
        "max_connections_per_tunnel",
        "requests_per_second",
        "request_body_bytes",
        "bandwidth",
        "idle_seconds",
    ],
)
@pytest.mark.parametrize(("mine", "other", "least"), [(5, 3, 3), (3, None, 3), (None, 7, 7)])
def test_of_each_limit_the_least_holds(
    field: str, mine: int | None, other: int | None, least: int
) -> None:
    policy = Policy(id="p", limits=Limits(**{field: other}))

    effective = merge(token(limits=Limits(**{field: mine})), [policy])

    assert getattr(effective.limits, field) == least


def test_the_burst_of_one_policy_does_not_loosen_another_that_has_none() -> None:
    slow = Policy(id="a", limits=Limits(requests_per_second=5))
    bursty = Policy(id="b", limits=Limits(requests_per_second=100, burst=500))

    effective = merge(token(), [slow, bursty])

    assert (effective.limits.requests_per_second, effective.limits.burst) == (5, 5)


def test_flags_hold_when_one_policy_has_them_and_lifetimes_shrink() -> None:
    strict = Policy(
        id="a", requires_tls=True, requires_rotation=True, max_lifetime_seconds=60, max_tokens=2
    )
    lax = Policy(id="b", max_lifetime_seconds=600, max_tokens=1)

    effective = merge(token(), [strict, lax])

    assert effective.requires_tls
    assert effective.requires_rotation
    assert (effective.max_lifetime_seconds, effective.max_tokens) == (60, 1)


@pytest.mark.parametrize(
    ("lists", "users", "denied"),
    [
        ([None, None], None, None),
        ([(ANN,), None], (ANN,), None),
        ([(ANN, BOB), (BOB, ANN)], (ANN, BOB), None),
        ([(ANN,), (BOB,)], None, AUTH_CONFLICT),
        ([(ANN,), ()], None, AUTH_CONFLICT),
    ],
    ids=["none", "one", "the same", "two", "one, and nobody"],
)
def test_two_different_passwords_close_http(
    lists: list[tuple[BasicCredential, ...] | None],
    users: tuple[BasicCredential, ...] | None,
    denied: str | None,
) -> None:
    effective = merge(token(), [Policy(id="p", basic_auth=users) for users in lists])

    assert (effective.basic_auth, effective.http_denied) == (users, denied)


def test_passwords_that_nobody_could_resolve_close_http() -> None:
    effective = merge(
        token(), [Policy(id="a", is_auth_unresolved=True), Policy(id="b", basic_auth=(ANN,))]
    )

    assert (effective.basic_auth, effective.http_denied) == (None, AUTH_UNRESOLVED)


def test_a_policy_that_is_missing_allows_nothing() -> None:
    effective = merge(token(), [nothing_allowed("gone")])

    assert effective.grant == replace(
        effective.grant, protocols=(), hostnames=None, tcp_ports=(), agent_cidrs=()
    )
    assert not is_hostname_allowed(effective, "shop.tunnels.example.com", DOMAINS)
