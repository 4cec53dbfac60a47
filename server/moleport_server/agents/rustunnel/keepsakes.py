"""Addresses that nobody asked for by name, kept for the client that had them.

A stock client that was given a random name or port asks for a random one again after a drop, and its
visitors would be lost. Nothing on the wire tells that it is the same client, but the same token, the same
machine and the same local service do as well: whoever exposes one service twice gets one of its own
addresses in any case. The tunnel carries the mark of the latter two, over a restart of the server too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.live import Session, Tunnel


def keepsake_of(session: Session, local_addr: str) -> str:
    """Return what a client and its service are known by; a digest, because it goes to the store."""
    host = session.peer.rpartition(":")[0]
    return hashlib.sha256(f"{host}\n{local_addr}".encode()).hexdigest()


def find_kept(
    tunnels: Iterable[Tunnel], session: Session, protocol: TunnelProtocol, keepsake: str
) -> Tunnel | None:
    """Return a tunnel that waits for the client of this session, or None."""
    token_id = session.principal.token_id
    for tunnel in tunnels:
        if (
            tunnel.keepsake == keepsake
            and tunnel.session is None
            and not tunnel.is_opening
            and tunnel.token_id == token_id
            and tunnel.protocol is protocol
        ):
            return tunnel
    return None
