"""What the REST API needs of the rest of the server, declared by its user.

The composition root passes implementations to `application.make_app`. Every method may raise the
errors of `moleport_server.errors`; `problems` says which status each becomes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from moleport_server.domain.token import Principal
from moleport_server.registry.events import EventLog
from moleport_server.registry.live import Session, Tunnel
from moleport_server.store.base import PolicyStore, StoredSession, TokenStore, TunnelLogStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where this server is; the seed API knows several, one server is one row."""

    id: str = "default"
    name: str = ""
    location: str = ""
    host: str = "localhost"
    """Where agents connect to, as public as the URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What does not change while the server runs."""

    version: str
    instance_id: str
    """Of the state store: a new database has a new one."""
    domains: tuple[str, ...]
    http_port: int | None = None
    """Public port of the HTTP edge; None: off. The same for `https_port`."""
    https_port: int | None = None
    control_port: int
    """Public port of the control listener."""
    tcp_host: str
    """Public host of TCP tunnels."""
    tcp_ports: tuple[int, int] | None = None
    """Public range of TCP tunnels, inclusive; None: off."""
    region: Region = field(default_factory=Region)
    limits: Mapping[str, float | None] = field(default_factory=dict)
    """By name, units in the name; None is unlimited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What the process uses."""

    pid: int
    heap_bytes: int
    resident_bytes: int
    descriptors: int | None
    """Open ones; None where the system does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoodyFacts:
    """What the calls of the hoody-tunnel family tell beside live objects."""

    started_at: float
    """Unix seconds."""
    session_streams: int
    """Most streams of an agent."""
    stock_streams: int
    """Most streams of a stock client."""
    free_descriptors: Callable[[], int]
    vitals: Callable[[], Vitals]


class StateReader(TokenStore, PolicyStore, TunnelLogStore, Protocol):
    """The part of the state store that the API reads and writes."""


class Registry(Protocol):
    """The live objects, and the calls that end them."""

    @property
    def sessions(self) -> Mapping[str, Session]:
        """Live sessions by id."""
        ...

    @property
    def tunnels(self) -> Mapping[UUID, Tunnel]:
        """Live and leased tunnels by id."""
        ...

    @property
    def parked(self) -> Mapping[str, StoredSession]:
        """Sessions that lost their connection and may be resumed, by id."""
        ...

    @property
    def events(self) -> EventLog:
        """What happens, for watchers."""
        ...

    async def close_tunnel(self, tunnel: Tunnel, reason: str) -> None:
        """End a tunnel and its lease: its agent is told, its history row is closed. Idempotent."""
        ...

    async def close_session(
        self,
        session: Session,
        reason: str,
        *,
        drain_seconds: float = 0.0,
        grace_seconds: float = 0.0,
    ) -> None:
        """Begin to end a session; returns at once.

        Open requests have `drain_seconds` to finish before the agent is told; after that it has
        `grace_seconds` to close its connections itself.
        """
        ...

    def release_parked(self, session_id: str, reason: str) -> bool:
        """Release everything of a parked session; False if there is none."""
        ...

    async def close_token(self, token_id: str, reason: str) -> None:
        """End all sessions of a token and release its leases. Idempotent."""
        ...


class Authenticator(Protocol):
    """Tells who a secret belongs to."""

    async def authenticate(self, secret: str, *, address: str) -> Principal:
        """Return the bearer of the secret.

        Raises:
            Unauthenticated: it proves nothing.
            RateLimited: it is wrong, after too many wrong ones from `address`.
            StoreError: nobody knows.
        """
        ...

    def forget(self, token_id: str) -> None:
        """Drop cached verifications of a token, after it changed."""
        ...
