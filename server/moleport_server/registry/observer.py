"""What the registry tells whoever counts: how sessions, tunnels and leases begin and end.

Causes are words of a closed list, unlike the reasons that people read. `metrics.lifecycle` counts
them; `Unobserved` is for a registry that nobody watches.
"""

from enum import StrEnum
from typing import Protocol

from moleport_server.domain.tunnel import TunnelProtocol


class SessionEnd(StrEnum):
    """Why a session ended."""

    GOODBYE = "goodbye"
    """The agent said so."""
    LOST = "lost"
    """Its connection broke; the tunnels are leased."""
    PROTOCOL = "protocol"
    """The agent broke the protocol."""
    REPLACED = "replaced"
    """It was resumed on another connection while this one seemed alive."""
    CLOSED = "closed"
    """Its owner closed it."""
    REVOKED = "revoked"
    """Its token is not valid any more."""
    IDLE = "idle"
    """It had neither binds nor streams for long."""
    DRAINED = "drained"
    """The server ended."""


class TunnelEnd(StrEnum):
    """Why a tunnel was released."""

    UNBOUND = "unbound"
    """Its agent asked for it."""
    DELETED = "deleted"
    """Its owner deleted it or closed its session."""
    REVOKED = "revoked"
    """Its token is not valid any more."""
    LEASE_OVER = "lease_over"
    """Its agent did not come back."""


class LeaseEnd(StrEnum):
    """What became of a lease."""

    RESUMED = "resumed"
    """The agent came back."""
    EXPIRED = "expired"
    RELEASED = "released"
    """The tunnel was deleted while its agent was away."""


class ClaimResult(StrEnum):
    """What became of the wish for a tunnel."""

    OPENED = "opened"
    RESUMED = "resumed"
    """The agent has an address again that it had before."""
    INVALID = "invalid"
    FORBIDDEN = "forbidden"
    TAKEN = "taken"
    LIMITED = "limited"
    FAILED = "failed"


class RegistryObserver(Protocol):
    """Is told of each event, synchronously; must return at once and must not raise."""

    def session_opened(self, *, is_resumed: bool) -> None:
        """Note a session that began or came back."""

    def session_ended(self, cause: SessionEnd) -> None:
        """Note a session that ended."""

    def tunnel_claimed(self, protocol: TunnelProtocol, result: ClaimResult) -> None:
        """Note a wish for a tunnel and its result."""

    def tunnel_ended(self, protocol: TunnelProtocol, cause: TunnelEnd, seconds: float) -> None:
        """Note a tunnel that was released, and how long it lived."""

    def lease_ended(self, result: LeaseEnd) -> None:
        """Note the end of a lease."""


class Unobserved:
    """Counts nothing."""

    def session_opened(self, *, is_resumed: bool) -> None:
        """Ignore it."""

    def session_ended(self, cause: SessionEnd) -> None:
        """Ignore it."""

    def tunnel_claimed(self, protocol: TunnelProtocol, result: ClaimResult) -> None:
        """Ignore it."""

    def tunnel_ended(self, protocol: TunnelProtocol, cause: TunnelEnd, seconds: float) -> None:
        """Ignore it."""

    def lease_ended(self, result: LeaseEnd) -> None:
        """Ignore it."""
