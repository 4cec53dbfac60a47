"""Tokens: what a credential is allowed to expose, independent of where it is stored.

`None` means unrestricted and an empty tuple means that nothing is allowed, everywhere.
"""

from dataclasses import dataclass, field

from moleport_server.domain.tunnel import IPNetwork, TunnelProtocol


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
    requests_per_second: float | None = None


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
    last_used_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a caller proved to be: the admin (`token is None`) or a token, by one revision."""

    token: Token | None = None
    revision: int = 0

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


ADMIN = Principal()
