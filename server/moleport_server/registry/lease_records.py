"""How a tunnel looks in the store while it is leased, and how it comes back from there.

Pure: a tunnel goes in and a row comes out, or the other way round. What the settings of this run say
(URLs, where container ports listen) is asked anew, never taken from the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from uuid import UUID

from moleport_server.domain.tunnel import ContainerMode, ContainerPort, TunnelProtocol
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.claim import wished_rules
from moleport_server.registry.container_ports import ContainerPorts
from moleport_server.registry.live import Session, Tunnel
from moleport_server.store.base import Lease, StoredSession


def to_lease(tunnel: Tunnel) -> Lease:
    """Return the row that keeps a tunnel over a restart."""
    rules = tunnel.wished
    users = rules.basic_auth
    cidrs = rules.allowed_cidrs
    wishes: dict[str, object] = {
        "basic_auth": None if users is None else [[u.user, u.password_hash] for u in users],
        "allowed_cidrs": None if cidrs is None else [str(c) for c in cidrs],
        "host_header": tunnel.host_header,
        "keepsake": tunnel.keepsake,
    }
    if tunnel.container is not None:
        wishes["container"] = {
            "mode": tunnel.container.mode.value,
            "port": tunnel.container.port,
            "host": tunnel.container.host,
        }
    return Lease(
        tunnel_id=str(tunnel.id),
        protocol=tunnel.protocol,
        address=tunnel.address,
        token_id=tunnel.token_id,
        session_id=tunnel.session_id,
        bind_id=tunnel.bind_id,
        settings=json.dumps(wishes),
        opened_at=tunnel.opened_at,
        until=None,
    )


def to_tunnel(
    lease: Lease,
    *,
    until: float,
    token_label: str | None,
    addresses: PublicAddresses,
    container_ports: ContainerPorts,
) -> Tunnel:
    """Return the leased tunnel that a row stands for.

    Args:
        lease: as `to_lease` made it, in this run or an earlier one.
        until: when the lease ends, in monotonic seconds.
        token_label: of its owner today.
        addresses: what its URL is today.
        container_ports: says where its container port listens today.
    """
    wishes = json.loads(lease.settings)
    container = _container(wishes.get("container"), container_ports)
    hostname = port = None
    if lease.protocol is TunnelProtocol.HTTP:
        hostname = lease.address if container is None or lease.address[0] != ":" else None
    elif container is None:
        port = int(lease.address)
    users = wishes.get("basic_auth")
    return Tunnel(
        id=UUID(lease.tunnel_id),
        protocol=lease.protocol,
        hostname=hostname,
        port=port,
        container=container,
        public_url=addresses.url(hostname, port),
        token_id=lease.token_id,
        token_label=token_label,
        session=None,
        session_id=lease.session_id,
        bind_id=lease.bind_id,
        opened_at=lease.opened_at,
        wished=wished_rules(
            None if users is None else [(str(u), str(h)) for u, h in users],
            wishes.get("allowed_cidrs"),
        ),
        host_header=wishes.get("host_header"),
        keepsake=wishes.get("keepsake"),
        lease_until=until,
    )


def to_stored_session(session: Session) -> StoredSession:
    """Return the row that lets a session be resumed."""
    return StoredSession(
        id=session.id,
        token_id=session.principal.token_id,
        protocol=session.protocol,
        opened_at=session.connected_at,
    )


def _container(
    kept: Mapping[str, object] | None, container_ports: ContainerPorts
) -> ContainerPort | None:
    if kept is None:
        return None
    mode = ContainerMode(str(kept["mode"]))
    # Whether and where it listens is for the settings of this run to say.
    return container_ports.place(mode, int(str(kept["port"])), str(kept["host"]))
