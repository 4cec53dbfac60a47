"""Addresses that nobody asked for by name, kept for the client that had them.

A stock client that was given a random name or port asks for a random one again after a drop, and its
visitors would be lost. Nothing on the wire tells that it is the same client, but the same token, the same
machine and the same local service do as well: whoever exposes one service twice gets one of its own
addresses in any case.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.registry import Registry

PRUNE_ABOVE = 256
"""Entries of tunnels that are gone are dropped from so many entries on."""


class _Owner(NamedTuple):
    token_id: str | None
    host: str
    protocol: TunnelProtocol
    local_addr: str


class Keepsakes:
    """Who had which random address, as long as the registry keeps the tunnel."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._owners: dict[UUID, _Owner] = {}

    def keep(self, session: Session, tunnel: Tunnel, local_addr: str) -> None:
        """Remember whose address this is."""
        if len(self._owners) >= PRUNE_ABOVE + 2 * len(self._registry.tunnels):
            for tunnel_id in [one for one in self._owners if one not in self._registry.tunnels]:
                del self._owners[tunnel_id]
        self._owners[tunnel.id] = _owner(session, tunnel.protocol, local_addr)

    def find(self, session: Session, protocol: TunnelProtocol, local_addr: str) -> Tunnel | None:
        """Return a tunnel that waits for this client, or None."""
        wanted = _owner(session, protocol, local_addr)
        for tunnel_id, owner in self._owners.items():
            if owner == wanted:
                tunnel = self._registry.tunnels.get(tunnel_id)
                if tunnel is not None and tunnel.session is None:
                    return tunnel
        return None


def _owner(session: Session, protocol: TunnelProtocol, local_addr: str) -> _Owner:
    host = session.peer.rpartition(":")[0]
    return _Owner(session.principal.token_id, host, protocol, local_addr)
