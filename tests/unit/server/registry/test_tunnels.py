"""The steps in the life of a tunnel."""

from helpers.claimants import HOST, SHOP, Waiting, leases
from helpers.edge_rig import registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_server.registry.live import Tunnel


async def test_held_visitors_go_on_when_the_agent_is_welcome() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        waiter = Waiting()
        rig.registry.holds.join(tunnel, waiter)
        returned: list[Tunnel] = []
        rig.registry.notices.on_agent_returned = returned.append
        again = rig.session()

        await rig.registry.claim(again, 1, SHOP)
        assert waiter.ends == []
        rig.registry.welcome(again, tunnel)

        assert waiter.ends == [True]
        assert returned == [tunnel]


async def test_an_unbound_tunnel_is_released_for_good() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        await rig.registry.claim(session, 1, SHOP)

        assert rig.registry.unbind(session, 1, "released by its agent")
        assert not rig.registry.unbind(session, 1, "again")

        assert rig.registry.lookup(HOST) is None
        assert session.tunnels == {}
        assert await leases(rig) == []


async def test_a_tunnel_closed_by_its_owner_is_taken_from_its_agent() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        tunnel = await rig.registry.claim(rig.session(upstream=upstream), 1, SHOP)

        await rig.registry.close_tunnel(tunnel, "deleted by its owner")

        assert upstream.unbound == [(tunnel, "deleted by its owner")]
        assert rig.registry.lookup(HOST) is None
