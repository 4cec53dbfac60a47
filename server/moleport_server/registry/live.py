"""The live objects: a session is an authenticated agent, a tunnel is one upstream with its address.

Plain state with identity, changed only within this package (counters: by the edge). A tunnel outlives
its session while it is leased: `session` is then None and `lease_until` is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moleport_server.access.bounds import Bounds
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import (
    OPEN,
    ContainerPort,
    TunnelId,
    TunnelProtocol,
    VisitorRules,
)
from moleport_server.registry.upstream import Upstream


@dataclass(slots=True, eq=False, kw_only=True)
class Session:
    """One authenticated agent."""

    id: str
    protocol: str
    """Wire family: `moleport`, `hoody-tunnel.v1`, `hoody-tunnel.v2` or `rustunnel`."""
    principal: Principal
    upstream: Upstream
    peer: str
    """`ip:port` of the first connection."""
    connected_at: float
    """Unix seconds."""
    tunnels: dict[int, Tunnel] = field(default_factory=dict)
    """By bind id."""
    connections: int = 1
    """Open transport connections."""
    granted: int = 1
    """Transport connections that it may have."""
    agent: str = ""
    """What the agent says it is, for people."""

    @property
    def peer_host(self) -> str:
        """The IP address that it connected from."""
        return self.peer.rpartition(":")[0]


@dataclass(slots=True, eq=False, kw_only=True)
class Tunnel:
    """One exposed upstream and the public address that was given to it."""

    id: TunnelId
    protocol: TunnelProtocol
    hostname: str | None = None
    """Lower case, without port; for HTTP."""
    port: int | None = None
    """For TCP."""
    container: ContainerPort | None = None
    """For EXPOSE (beside or instead of a host name) and PULL (instead of a port)."""
    public_url: str
    """Empty if only the pod network reaches it."""
    token_id: str | None
    token_label: str | None
    session: Session | None
    session_id: str
    """Of the current session, or of the last one while leased."""
    bind_id: int
    opened_at: float
    """Unix seconds; kept over takeovers."""
    wished: VisitorRules = OPEN
    """The rules that its agent asked for."""
    rules: VisitorRules = OPEN
    """Those and what the policies of its token demand; what the edge goes by."""
    bounds: Bounds | None = None
    """The limits of its token, shared with its other tunnels; None: it has none."""
    host_header: str | None = None
    """The Host header for the local service; None keeps the visitor's."""
    keepsake: str | None = None
    """What its agent is known by if the address was drawn for it; None: it asks by name."""
    promised_to: Session | None = None
    """A session that was resumed and whose agent was told that it has the tunnel, until it is ready for
    streams; meanwhile `session` is None and visitors wait."""
    is_opening: bool = False
    """Whether its listener is being opened: nobody has it yet, and nobody else can be given it."""
    lease_until: float | None = None
    """Monotonic seconds; None while the session is live."""
    may_hold: bool = True
    """Whether visitors wait while the agent is away; False after a clean goodbye."""
    evicted_at: float | None = None
    """Monotonic seconds; when it was last taken from an agent that was alive elsewhere."""
    request_count: int = 0
    """Requests (HTTP) or connections (TCP) that reached the tunnel."""
    bytes_in: int = 0
    """Visitor to agent."""
    bytes_out: int = 0
    """Agent to visitor."""
    active: int = 0
    """Requests or connections in flight."""
    client_addr: str = ""
    """`ip:port` of the agent, the last known one while leased."""

    @property
    def owner(self) -> Session | None:
        """The session whose agent believes that it has the tunnel."""
        return self.session or self.promised_to

    @property
    def label(self) -> str:
        """The full host name, or the port as text."""
        if self.hostname is not None:
            return self.hostname
        return str(self.port if self.container is None else self.container.port)

    @property
    def address(self) -> str:
        """What no other tunnel of this protocol has: the label, with a colon before container ports."""
        if self.hostname is None and self.container is not None:
            return f":{self.container.port}"
        return self.label

    @property
    def has_listener(self) -> bool:
        """Whether a port is open for this tunnel alone."""
        if self.container is not None:
            return self.container.is_listening
        return self.port is not None
