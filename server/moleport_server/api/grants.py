"""Shapes and parsers of what tokens and policies say: access, limits, owners.

Unknown members are refused: one that this release does not know would be a restriction that silently
does not hold. `null` or nothing restricts nothing, an empty list allows nothing.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Final

from msgspec import Meta, Struct

from moleport_server.api.problems import UnprocessableBody
from moleport_server.domain.policy import allowed_hostnames
from moleport_server.domain.scope import parse_pattern
from moleport_server.domain.token import Effective, Grant, Limits, Owner
from moleport_server.domain.tunnel import IPNetwork, TunnelProtocol
from moleport_server.errors import InvalidRequest

MAX_ENTRIES: Final = 256
"""Of one list; a scope has as many."""
_LARGEST: Final = (1 << 53) - 1
"""The largest integer that every JSON library reads exactly."""

Text = Annotated[str, Meta(max_length=255)]
Pattern = Annotated[str, Meta(max_length=253)]
Network = Annotated[str, Meta(max_length=43, description="CIDR")]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Number = Annotated[int, Meta(ge=0, le=_LARGEST)]
Rate = Annotated[float, Meta(gt=0, le=1e9)]
Seconds = Annotated[float, Meta(gt=0, le=1e10)]
Moment = Annotated[datetime, Meta(tz=True)]
List = Meta(max_length=MAX_ENTRIES)


class OwnerObject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Kubernetes object that this was made for."""

    cluster: Annotated[str, Meta(min_length=1, max_length=255)]
    namespace: Text = ""
    name: Text
    uid: Text

    def parse(self) -> Owner:
        """Return the owner."""
        return Owner(cluster=self.cluster, namespace=self.namespace, name=self.name, uid=self.uid)

    @classmethod
    def show(cls, owner: Owner | None) -> "OwnerObject | None":
        """Return the shape of an owner."""
        if owner is None:
            return None
        return cls(cluster=owner.cluster, namespace=owner.namespace, name=owner.name, uid=owner.uid)


class PortRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ports from `start` to `end`, both included; without `end` the one."""

    start: PortNumber
    end: PortNumber | None = None


class TokenAccess(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token may bind and from where its agents may come."""

    protocols: Annotated[list[TunnelProtocol], List] | None = None
    hostnames: Annotated[list[Pattern], List] | None = None
    tcp_ports: Annotated[list[PortRange], List] | None = None
    container_ports: Annotated[list[PortRange], List] | None = None
    agent_cidrs: Annotated[list[Network], List] | None = None

    def parse(self) -> Grant:
        """Return the grant.

        Raises:
            UnprocessableBody: a pattern, a network or a range makes no sense.
        """
        return Grant(
            protocols=parse_protocols(self.protocols),
            hostnames=parse_patterns(self.hostnames),
            tcp_ports=parse_ranges("tcp_ports", self.tcp_ports),
            container_ports=parse_ranges("container_ports", self.container_ports),
            agent_cidrs=parse_networks("agent_cidrs", self.agent_cidrs),
        )

    @classmethod
    def show(cls, grant: Grant) -> "TokenAccess":
        """Return the shape of a grant."""
        return cls(
            protocols=None if grant.protocols is None else list(grant.protocols),
            hostnames=None if grant.hostnames is None else list(grant.hostnames),
            tcp_ports=show_ranges(grant.tcp_ports),
            container_ports=show_ranges(grant.container_ports),
            agent_cidrs=show_networks(grant.agent_cidrs),
        )


class TokenLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a token may use; the limits of all its tunnels together unless the name says else."""

    max_tunnels: Number | None = None
    max_agents: Number | None = None
    max_connections: Annotated[
        Number | None, Meta(description="Requests and TCP connections in flight.")
    ] = None
    max_connections_per_tunnel: Number | None = None
    requests_per_second: Annotated[
        Rate | None, Meta(description="Requests and new TCP connections.")
    ] = None
    burst: Annotated[
        Annotated[float, Meta(ge=1, le=1e9)] | None,
        Meta(description="How many may come at once; by default those of one second."),
    ] = None
    request_body_bytes: Number | None = None
    bandwidth: Annotated[
        Annotated[int, Meta(ge=1, le=_LARGEST)] | None,
        Meta(description="Bytes per second, both directions summed."),
    ] = None
    idle_timeout: Annotated[
        Seconds | None, Meta(description="Seconds after which a silent connection is ended.")
    ] = None

    def parse(self) -> Limits:
        """Return the limits.

        Raises:
            UnprocessableBody: a burst without a rate.
        """
        check_burst(self.burst, self.requests_per_second)
        return Limits(
            max_tunnels=self.max_tunnels,
            max_agents=self.max_agents,
            max_connections=self.max_connections,
            max_connections_per_tunnel=self.max_connections_per_tunnel,
            requests_per_second=self.requests_per_second,
            burst=self.burst,
            request_body_bytes=self.request_body_bytes,
            bandwidth=self.bandwidth,
            idle_seconds=self.idle_timeout,
        )

    @classmethod
    def show(cls, limits: Limits) -> "TokenLimits":
        """Return the shape of limits."""
        return cls(
            max_tunnels=limits.max_tunnels,
            max_agents=limits.max_agents,
            max_connections=limits.max_connections,
            max_connections_per_tunnel=limits.max_connections_per_tunnel,
            requests_per_second=limits.requests_per_second,
            burst=limits.burst,
            request_body_bytes=limits.request_body_bytes,
            bandwidth=limits.bandwidth,
            idle_timeout=limits.idle_seconds,
        )


class TokenRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What policies ask of credentials."""

    max_lifetime: Annotated[
        Seconds | None,
        Meta(description="Seconds that a credential is valid from its registration, at most."),
    ] = None
    max_tokens: Number | None = None
    require_rotation: bool = False


class EffectiveAccess(Struct, frozen=True, kw_only=True):
    """What a token may bind under its policies, and who may visit."""

    protocols: list[TunnelProtocol] | None
    hostnames: Annotated[
        list[str] | None,
        Meta(description="null: single labels under the domains of the server."),
    ]
    tcp_ports: list[PortRange] | None
    container_ports: list[PortRange] | None
    agent_cidrs: list[str] | None
    client_cidrs: list[str] | None
    denied_client_cidrs: list[str]


class EffectiveHttp(Struct, frozen=True, kw_only=True):
    """What visitors by HTTP have to do."""

    require_tls: bool
    users: Annotated[list[str] | None, Meta(description="null: no password is asked for.")]
    denied: Annotated[str | None, Meta(description="Why no visitor gets through; null: they do.")]


class EffectiveView(Struct, frozen=True, kw_only=True):
    """What holds for a token: the most restrictive of the token and its policies."""

    access: EffectiveAccess
    limits: TokenLimits
    tokens: TokenRules
    http: EffectiveHttp


def show_effective(effective: Effective, domains: tuple[str, ...]) -> EffectiveView:
    """Return the view of what holds for a token."""
    grant, users = effective.grant, effective.basic_auth
    hostnames = allowed_hostnames(effective, domains)
    return EffectiveView(
        access=EffectiveAccess(
            protocols=None if grant.protocols is None else list(grant.protocols),
            hostnames=None if hostnames is None else list(hostnames),
            tcp_ports=show_ranges(grant.tcp_ports),
            container_ports=show_ranges(grant.container_ports),
            agent_cidrs=show_networks(grant.agent_cidrs),
            client_cidrs=show_networks(effective.client_cidrs),
            denied_client_cidrs=show_networks(effective.denied_client_cidrs) or [],
        ),
        limits=TokenLimits.show(effective.limits),
        tokens=TokenRules(
            max_lifetime=effective.max_lifetime_seconds,
            max_tokens=effective.max_tokens,
            require_rotation=effective.requires_rotation,
        ),
        http=EffectiveHttp(
            require_tls=effective.requires_tls,
            users=None if users is None else [user.user for user in users],
            denied=effective.http_denied,
        ),
    )


def parse_id(text: str) -> str:
    """Return a UUID in its one spelling.

    Raises:
        InvalidRequest: the text is none.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InvalidRequest(f"{text[:80]!r} is no UUID") from error


def parse_protocols(names: Iterable[TunnelProtocol] | None) -> tuple[TunnelProtocol, ...] | None:
    """Return protocols, each once."""
    return None if names is None else tuple(dict.fromkeys(names))


def parse_patterns(patterns: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return host name patterns in their one spelling, each once.

    Raises:
        UnprocessableBody: one is malformed.
    """
    if patterns is None:
        return None
    try:
        return tuple(dict.fromkeys(parse_pattern(pattern) for pattern in patterns))
    except InvalidRequest as error:
        raise UnprocessableBody(f"hostnames: {error}") from error


def parse_ranges(
    where: str, ranges: Iterable[PortRange] | None
) -> tuple[tuple[int, int], ...] | None:
    """Return inclusive ranges.

    Raises:
        UnprocessableBody: one ends before it starts.
    """
    if ranges is None:
        return None
    pairs = tuple((r.start, r.start if r.end is None else r.end) for r in ranges)
    for start, end in pairs:
        if end < start:
            raise UnprocessableBody(f"{where}: the range {start}-{end} ends before it starts")
    return pairs


def parse_networks(where: str, texts: Iterable[str] | None) -> tuple[IPNetwork, ...] | None:
    """Return networks, each once.

    Raises:
        UnprocessableBody: one is none, or has host bits.
    """
    if texts is None:
        return None
    try:
        return tuple(dict.fromkeys(map(ip_network, texts)))
    except ValueError as error:
        # Says also that host bits are set, which is worth a look: 10.0.0.1/8 is a slip.
        raise UnprocessableBody(f"{where}: {error}") from error


def show_ranges(ranges: Iterable[tuple[int, int]] | None) -> list[PortRange] | None:
    """Return the shape of ranges."""
    return None if ranges is None else [PortRange(start=start, end=end) for start, end in ranges]


def show_networks(networks: Iterable[IPNetwork] | None) -> list[str] | None:
    """Return the texts of networks."""
    return None if networks is None else list(map(str, networks))


def check_burst(burst: float | None, rate: float | None) -> None:
    """Check that a burst belongs to a rate.

    Raises:
        UnprocessableBody: there is none.
    """
    if burst is not None and rate is None:
        raise UnprocessableBody("limits.burst needs limits.requests_per_second")


def unix_seconds(moment: datetime | None) -> float | None:
    """Return Unix seconds, or None for no moment."""
    return None if moment is None else moment.timestamp()
