"""A store that fails does not stop tunnels."""

from helpers.claimants import SHOP
from helpers.edge_rig import registry_rig
from moleport_server.errors import (
    StoreFull,
)
from moleport_server.store.base import Lease, TunnelLogEntry
from moleport_server.store.memory import MemoryStateStore


class FullStore(MemoryStateStore):
    """A disk without room for leases, sessions and history."""

    async def save_lease(self, lease: Lease) -> None:
        raise StoreFull("disk full")

    async def park_leases(self, session_id: str, until: float) -> None:
        raise StoreFull("disk full")

    async def add_log_entry(self, entry: TunnelLogEntry) -> None:
        raise StoreFull("disk full")

    async def delete_leases(self, tunnel_ids: object) -> None:
        raise StoreFull("disk full")


async def test_tunnels_go_on_when_the_disk_is_full() -> None:
    async with registry_rig(FullStore()) as rig:
        session = rig.session()

        tunnel = await rig.registry.claim(session, 1, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        again = await rig.registry.claim(rig.session(), 1, SHOP)
        await rig.registry.close_tunnel(again, "deleted")

        assert again is tunnel
        assert rig.registry.tunnels == {}
        await rig.written()
        assert rig.journal.failures >= 4
