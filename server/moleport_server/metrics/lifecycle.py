"""Counts what the registry tells of sessions, tunnels and leases (a `RegistryObserver`)."""

from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.metrics.instruments import AgentMetrics, RegistryMetrics
from moleport_server.registry.observer import ClaimResult, LeaseEnd, SessionEnd, TunnelEnd


class LifecycleCounts:
    """Turns events into increments."""

    def __init__(self, agents: AgentMetrics, tunnels: RegistryMetrics) -> None:
        self._agents = agents
        self._tunnels = tunnels

    def session_opened(self, *, is_resumed: bool) -> None:
        """Count a session that began or came back."""
        self._agents.sessions_opened.labels("resumed" if is_resumed else "new").inc()

    def session_ended(self, cause: SessionEnd) -> None:
        """Count a session that ended."""
        self._agents.sessions_closed.labels(cause.value).inc()

    def tunnel_claimed(self, protocol: TunnelProtocol, result: ClaimResult) -> None:
        """Count a wish for a tunnel."""
        self._tunnels.tunnel_opens.labels(protocol.value, result.value).inc()

    def tunnel_ended(self, protocol: TunnelProtocol, cause: TunnelEnd, seconds: float) -> None:
        """Count a released tunnel and its life."""
        self._tunnels.tunnel_closes.labels(protocol.value, cause.value).inc()
        self._tunnels.tunnel_duration.labels(protocol.value).observe(seconds)

    def lease_ended(self, result: LeaseEnd) -> None:
        """Count the end of a lease."""
        self._tunnels.leases_ended.labels(result.value).inc()
