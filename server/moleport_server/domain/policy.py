"""Policies: bounds that somebody else than the owner of a token puts on it, and their merge.

The result is the most restrictive of all: lists intersect, denials unite, numbers take the minimum,
flags the disjunction. Order and age do not matter, a policy twice is a policy once, and attaching
one never enlarges what is allowed. Passwords cannot be intersected, so two different lists of them
close the tunnels of the token to HTTP instead of letting either author weaken the other.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final, TypeVar

from moleport_server.domain.scope import covers, matches
from moleport_server.domain.token import Effective, Grant, Limits, Owner, Token
from moleport_server.domain.tunnel import (
    BasicCredential,
    IPNetwork,
    TunnelProtocol,
    VisitorRules,
)

_T = TypeVar("_T")

AUTH_CONFLICT: Final = "its policies ask for different passwords"
TUNNEL_AUTH_CONFLICT: Final = "the tunnel and its policies ask for different passwords"
AUTH_UNRESOLVED: Final = "a policy asks for passwords that the server was not given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy; `None` restricts nothing, an empty tuple allows nothing."""

    id: str
    """UUID as lower-case text."""
    owner: Owner | None = None
    protocols: tuple[TunnelProtocol, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    """Patterns as in `scope`."""
    tcp_ports: tuple[tuple[int, int], ...] | None = None
    agent_cidrs: tuple[IPNetwork, ...] | None = None
    client_cidrs: tuple[IPNetwork, ...] | None = None
    denied_client_cidrs: tuple[IPNetwork, ...] = ()
    limits: Limits = field(default_factory=Limits)
    """Those that a policy has: of tunnels and their connections, requests, bodies, bandwidth."""
    max_lifetime_seconds: float | None = None
    max_tokens: int | None = None
    requires_rotation: bool = False
    requires_tls: bool = False
    basic_auth: tuple[BasicCredential, ...] | None = None
    is_auth_unresolved: bool = False
    """It asks for passwords, and nobody could say which."""
    version: int = 1
    """Counts replacements; the ETag of the API."""


def nothing_allowed(policy_id: str) -> Policy:
    """Return what stands for a policy that is attached and cannot be found: it allows nothing."""
    return Policy(id=policy_id, protocols=(), hostnames=(), tcp_ports=(), agent_cidrs=())


def merge(token: Token, policies: Iterable[Policy]) -> Effective:
    """Return what the token may do under all of its policies."""
    attached = tuple(policies)
    if not attached:
        return Effective(grant=token.grant, limits=token.limits)
    grant, limits = token.grant, token.limits
    protocols, ports, agents = grant.protocols, grant.tcp_ports, grant.agent_cidrs
    clients: tuple[IPNetwork, ...] | None = None
    denied: set[IPNetwork] = set()
    for policy in attached:
        protocols = _both(protocols, policy.protocols, _common_protocols)
        ports = _both(ports, policy.tcp_ports, _common_ranges)
        agents = _both(agents, policy.agent_cidrs, _common_networks)
        clients = _both(clients, policy.client_cidrs, _common_networks)
        denied.update(policy.denied_client_cidrs)
        limits = _tighter(limits, policy.limits)
    basic_auth, http_denied = _merge_auth(attached)
    return Effective(
        grant=Grant(
            protocols=None if protocols is None else tuple(sorted(protocols)),
            hostnames=grant.hostnames,
            tcp_ports=None if ports is None else _canonical_ranges(ports),
            container_ports=grant.container_ports,
            agent_cidrs=None if agents is None else _canonical_networks(agents),
        ),
        hostname_bounds=tuple(
            sorted({tuple(sorted(p.hostnames)) for p in attached if p.hostnames is not None})
        ),
        limits=limits,
        client_cidrs=None if clients is None else _canonical_networks(clients),
        denied_client_cidrs=_canonical_networks(denied),
        requires_tls=any(policy.requires_tls for policy in attached),
        basic_auth=basic_auth,
        http_denied=http_denied,
        max_lifetime_seconds=_least(policy.max_lifetime_seconds for policy in attached),
        max_tokens=_least(policy.max_tokens for policy in attached),
        requires_rotation=any(policy.requires_rotation for policy in attached),
    )


def visitor_rules(wished: VisitorRules, effective: Effective) -> VisitorRules:
    """Return the rules of a tunnel: what its agent wished, restricted by what holds for its token."""
    demanded = VisitorRules(
        basic_auth=effective.basic_auth,
        allowed_cidrs=effective.client_cidrs,
        denied_cidrs=effective.denied_client_cidrs,
        requires_tls=effective.requires_tls,
        http_denied=effective.http_denied,
    )
    if demanded.is_open:
        return wished
    http_denied = demanded.http_denied
    if wished.basic_auth is not None and demanded.basic_auth is not None:
        # A visitor shows one password, so nobody could pass both.
        is_same = set(wished.basic_auth) == set(demanded.basic_auth)
        http_denied = http_denied or (None if is_same else TUNNEL_AUTH_CONFLICT)
    return VisitorRules(
        basic_auth=demanded.basic_auth if wished.basic_auth is None else wished.basic_auth,
        allowed_cidrs=_both(wished.allowed_cidrs, demanded.allowed_cidrs, _common_networks),
        denied_cidrs=demanded.denied_cidrs,
        requires_tls=demanded.requires_tls,
        http_denied=http_denied,
    )


def is_hostname_allowed(effective: Effective, hostname: str, domains: Collection[str]) -> bool:
    """Whether the token may bind the host name: granted, and inside of every policy's bound."""
    return matches(effective.grant.hostnames, hostname, domains) and is_within_bounds(
        effective, hostname, domains
    )


def is_within_bounds(effective: Effective, hostname: str, domains: Collection[str]) -> bool:
    """Whether every policy leaves the host name open; says nothing of the token's own grant."""
    return all(matches(bound, hostname, domains) for bound in effective.hostname_bounds)


def allowed_hostnames(effective: Effective, domains: Collection[str]) -> tuple[str, ...] | None:
    """Return the patterns that describe what grant and bounds allow together; None: any label.

    For people, and to draw names from; `is_hostname_allowed` decides. Of two patterns that overlap
    without one covering the other the first stays, so a name that is drawn still has to be checked.
    """
    patterns = effective.grant.hostnames
    if not effective.hostname_bounds:
        return patterns
    if patterns is None:
        patterns = ("*",)
    patterns = _in_full(patterns, domains)
    for bound in effective.hostname_bounds:
        common: dict[str, None] = {}
        for one in patterns:
            for other in _in_full(bound, domains):
                if covers(other, one, domains):
                    common[one] = None
                elif covers(one, other, domains):
                    common[other] = None
                elif _may_overlap(one, other):
                    common[one] = None
        patterns = tuple(common)
    return patterns


def _in_full(patterns: Iterable[str], domains: Collection[str]) -> tuple[str, ...]:
    """Write what stands for a label under our domains as whole names."""
    return tuple(
        name
        for pattern in patterns
        for name in ((pattern,) if "." in pattern else (f"{pattern}.{d}" for d in domains))
    )


def _may_overlap(one: str, other: str) -> bool:
    """Whether some host name matches both patterns."""
    # Pairs of positions that a beginning of some text can lead to; there are few of them.
    seen: set[tuple[int, int]] = set()
    reached = [(0, 0)]
    while reached:
        at = i, j = reached.pop()
        if at in seen:
            continue
        seen.add(at)
        if i == len(one) and j == len(other):
            return True
        left, right = one[i : i + 1], other[j : j + 1]
        if left == "*":
            reached.append((i + 1, j))
            if right not in {"", "."}:
                reached.append((i, j + 1))
        if right == "*":
            reached.append((i, j + 1))
            if left not in {"", "."}:
                reached.append((i + 1, j))
        if left and right and "*" not in {left, right}:
            is_any = "?" in {left, right} and "." not in {left, right}
            if left == right or is_any:
                reached.append((i + 1, j + 1))
    return False


def _both(
    mine: tuple[_T, ...] | None,
    other: tuple[_T, ...] | None,
    common: Callable[[tuple[_T, ...], tuple[_T, ...]], tuple[_T, ...]],
) -> tuple[_T, ...] | None:
    if mine is None or other is None:
        return other if mine is None else mine
    return common(mine, other)


def _common_protocols(
    mine: tuple[TunnelProtocol, ...], other: tuple[TunnelProtocol, ...]
) -> tuple[TunnelProtocol, ...]:
    return tuple(protocol for protocol in mine if protocol in other)


def _common_ranges(
    mine: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    pairs = [(max(first, least), min(last, most)) for first, last in mine for least, most in other]
    return tuple(pair for pair in pairs if pair[0] <= pair[1])


def _common_networks(
    mine: tuple[IPNetwork, ...], other: tuple[IPNetwork, ...]
) -> tuple[IPNetwork, ...]:
    common: list[IPNetwork] = []
    for one in mine:
        for two in other:
            if _is_subnet(one, two):
                common.append(one)
            elif _is_subnet(two, one):
                common.append(two)
    return tuple(common)


def _is_subnet(inner: IPNetwork, outer: IPNetwork) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _canonical_networks(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    known = tuple(networks)
    return (
        *collapse_addresses(network for network in known if isinstance(network, IPv4Network)),
        *collapse_addresses(network for network in known if isinstance(network, IPv6Network)),
    )


def _canonical_ranges(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _tighter(mine: Limits, other: Limits) -> Limits:
    bursts = (_burst(limits) for limits in (mine, other))
    return Limits(
        max_tunnels=_least((mine.max_tunnels, other.max_tunnels)),
        max_agents=_least((mine.max_agents, other.max_agents)),
        max_connections=_least((mine.max_connections, other.max_connections)),
        max_connections_per_tunnel=_least(
            (mine.max_connections_per_tunnel, other.max_connections_per_tunnel)
        ),
        requests_per_second=_least((mine.requests_per_second, other.requests_per_second)),
        burst=_least(bursts),
        request_body_bytes=_least((mine.request_body_bytes, other.request_body_bytes)),
        bandwidth=_least((mine.bandwidth, other.bandwidth)),
        idle_seconds=_least((mine.idle_seconds, other.idle_seconds)),
    )


def _burst(limits: Limits) -> float | None:
    """Return the burst with its default: without it, a large burst elsewhere would be the least."""
    if limits.burst is not None or limits.requests_per_second is None:
        return limits.burst
    return max(1.0, limits.requests_per_second)


_Number = TypeVar("_Number", int, float)


def _least(values: Iterable[_Number | None]) -> _Number | None:
    return min((value for value in values if value is not None), default=None)


def _merge_auth(
    policies: tuple[Policy, ...],
) -> tuple[tuple[BasicCredential, ...] | None, str | None]:
    if any(policy.is_auth_unresolved for policy in policies):
        return None, AUTH_UNRESOLVED
    lists = {frozenset(policy.basic_auth) for policy in policies if policy.basic_auth is not None}
    if len(lists) > 1:
        return None, AUTH_CONFLICT
    if not lists:
        return None, None
    users = sorted(lists.pop(), key=lambda user: (user.user, user.password_hash))
    return tuple(users), None
