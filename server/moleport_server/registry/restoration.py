"""Restoration: brings back what the last run has left in the store, once, before any listener opens."""

from __future__ import annotations

import logging

from moleport_server.access.authentication import merge_named
from moleport_server.clock import Clock
from moleport_server.domain.token import Principal
from moleport_server.errors import PortTaken
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.container_ports import ContainerPorts
from moleport_server.registry.governance import Governance
from moleport_server.registry.lease_records import to_tunnel
from moleport_server.registry.leases import Leases
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.tunnels import Tunnels
from moleport_server.store.base import Lease, StateStore

logger = logging.getLogger(__name__)


class Restoration:
    """Makes leased tunnels and parked sessions of the rows in the store."""

    def __init__(
        self,
        store: StateStore,
        *,
        leases: Leases,
        parked: ParkedSessions,
        tunnels: Tunnels,
        governance: Governance,
        addresses: PublicAddresses,
        container_ports: ContainerPorts,
        clock: Clock,
    ) -> None:
        self._store = store
        self._leases = leases
        self._parked = parked
        self._tunnels = tunnels
        self._governance = governance
        self._addresses = addresses
        self._container_ports = container_ports
        self._clock = clock

    async def run(self) -> None:
        """Load sessions and leases; every lease starts anew and in full.

        Ports that another program has taken meanwhile are released, with a warning.
        """
        leases = await self._store.load_leases()
        with_tunnels = {lease.session_id for lease in leases}
        for stored in await self._store.load_sessions():
            if stored.id in with_tunnels:
                self._parked.restore(stored)
            else:
                await self._store.delete_session(stored.id)
        until, wall_until = self._leases.end_of_new(), self._leases.wall_end_of_new()
        owners = await self._owners(leases)
        for lease in leases:
            owner = owners.get(lease.token_id or "", Principal())
            tunnel = to_tunnel(
                lease,
                until=until,
                token_label=owner.label,
                addresses=self._addresses,
                container_ports=self._container_ports,
            )
            self._governance.govern(tunnel, owner.effective)
            try:
                await self._tunnels.reserve(tunnel)
            except PortTaken as error:
                logger.warning(
                    "port of a lease is taken by another program, releasing it",
                    extra={"port": tunnel.address, "error": str(error)},
                )
                await self._store.delete_leases([lease.tunnel_id])
                await self._store.close_log_entries([lease.tunnel_id], self._clock.now())
                continue
            await self._store.park_leases(lease.session_id, wall_until)
        self._leases.schedule()

    async def _owners(self, leases: list[Lease]) -> dict[str, Principal]:
        """Return what the owners of leases may do today, by token id."""
        policies = [row.policy for row in await self._store.list_policies()]
        owners: dict[str, Principal] = {}
        for token_id in {lease.token_id for lease in leases if lease.token_id is not None}:
            row = await self._store.get_token(token_id)
            if row is not None:
                merged = merge_named(row.token, policies)
                owners[token_id] = Principal(token=row.token, merged=merged)
        return owners
