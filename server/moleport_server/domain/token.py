"""Tokens: what a credential is allowed to expose, independent of where it is stored.

`None` means unrestricted and an empty tuple means that nothing is allowed, everywhere.
"""

from dataclasses import dataclass, field

from moleport_server.domain.tunnel import BasicCredential, IPNetwork, TunnelProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token may bind and from where its agents may come."""

    protocols: tuple[TunnelProtocol, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    """Globs: a pattern without a dot is matched with the label under our domains, one with a dot
    with the whole host name. Unrestricted means single labels under our domains only."""
    tcp_ports: tuple[tuple[int, int], ...] | None = None
    """Inclusive ranges."""
    container_ports: tuple[tuple[int, int], ...] | None = None
    """Inclusive ranges."""
    agent_cidrs: tuple[IPNetwork, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a token may use; `None` is unlimited (the server's own limits still hold)."""

    max_tunnels: int | None = None
    max_agents: int | None = None
    max_connections: int | None = None
    """Requests and TCP connections in flight, of all its tunnels together."""
    max_connections_per_tunnel: int | None = None
    requests_per_second: float | None = None
    """Requests and new TCP connections, of all its tunnels together."""
    burst: float | None = None
    """How many of them may come at once; None: as many as in one second."""
    request_body_bytes: int | None = None
    bandwidth: int | None = None
    """Bytes per second, both directions and all its tunnels summed."""
    idle_seconds: float | None = None
    """A connection on which nothing moves for so long is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The Kubernetes object that a token or policy was made for; who else asks is refused."""

    cluster: str
    """Chosen once by the operator of a cluster (the UID of `kube-system`, say)."""
    namespace: str = ""
    """Empty for objects of the whole cluster."""
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What holds for a token when its policies were merged into it; made by `policy.merge`."""

    grant: Grant = field(default_factory=Grant)
    """Restricted by the policies in all but the host names, which are the token's own: what a
    policy lists is a bound, and must not become the permission for a host outside of our domains,
    for a wildcard or for a reserved name."""
    hostname_bounds: tuple[tuple[str, ...], ...] = ()
    """Of each policy that has any; a host name has to match every one."""
    limits: Limits = field(default_factory=Limits)
    client_cidrs: tuple[IPNetwork, ...] | None = None
    denied_client_cidrs: tuple[IPNetwork, ...] = ()
    requires_tls: bool = False
    basic_auth: tuple[BasicCredential, ...] | None = None
    http_denied: str | None = None
    """Why no visitor gets through by HTTP, or None."""
    max_lifetime_seconds: float | None = None
    """Of each credential, from the moment it was registered."""
    max_tokens: int | None = None
    """How many tokens a namespace may have; for the operator."""
    requires_rotation: bool = False
    """For the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential's owner: one row of the token table."""

    id: str
    """UUID as lower-case text."""
    label: str
    scope: str | None = None
    """The comma separated patterns of the seed API, as given; `grant` is what they mean."""
    grant: Grant = field(default_factory=Grant)
    limits: Limits = field(default_factory=Limits)
    created_at: float
    """Unix seconds."""
    last_used_at: float | None = None
    expires_at: float | None = None
    suspended: bool = False
    owner: Owner | None = None
    """None: made by hand."""
    policy_ids: tuple[str, ...] = ()
    """Ascending, each once."""
    version: int = 1
    """Counts replacements; the ETag of the API."""

    def is_valid(self, now: float) -> bool:
        """Whether the token may be used at the wall-clock time `now`."""
        return not self.suspended and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One revision slot of a token; the secret itself is never kept."""

    token_id: str
    revision: int
    sha256: str
    """Lower-case hex digest of the UTF-8 secret."""
    not_after: float | None = None
    created_at: float | None = None
    """When this secret was registered; None: with the token."""
    last_used_at: float | None = None

    def ends_at(self, token: Token, effective: Effective) -> float | None:
        """Return when the secret proves nothing any more, by its own end or by a policy's."""
        if effective.max_lifetime_seconds is None:
            return self.not_after
        begin = token.created_at if self.created_at is None else self.created_at
        end = begin + effective.max_lifetime_seconds
        return end if self.not_after is None else min(end, self.not_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a caller proved to be: the admin (`token is None`) or a token, by one revision."""

    token: Token | None = None
    revision: int = 0
    merged: Effective | None = None
    """What the token may do with its policies; None: it has none."""
    ends_at: float | None = field(default=None, compare=False)
    """Unix seconds when the credential ends by itself, as far as it was known at the proof."""

    @property
    def effective(self) -> Effective:
        """What this caller may do; the admin everything."""
        if self.merged is not None:
            return self.merged
        if self.token is None:
            return _UNBOUNDED
        return Effective(grant=self.token.grant, limits=self.token.limits)

    @property
    def is_admin(self) -> bool:
        """Whether this is the admin, who sees and may do everything."""
        return self.token is None

    @property
    def token_id(self) -> str | None:
        """The token's id, or None for the admin."""
        return None if self.token is None else self.token.id

    @property
    def label(self) -> str | None:
        """The token's label, or None for the admin."""
        return None if self.token is None else self.token.label

    def owns(self, token_id: str | None) -> bool:
        """Whether an object of `token_id` (None: the admin's) is visible to this caller."""
        return self.token is None or self.token.id == token_id


_UNBOUNDED = Effective()

ADMIN = Principal()
