"""The parts together: the server starts to end, and ends."""

from helpers.claimants import ANY_PORT, HOST, SHOP, Waiting, leases
from helpers.edge_rig import registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_server.store.memory import MemoryStateStore
from moleport_wire.hoody.frames import Code


async def test_a_drain_tells_every_agent_and_ends_nobody() -> None:
    async with registry_rig() as rig:
        upstreams = [ScriptedUpstream(), ScriptedUpstream()]
        for upstream in upstreams:
            rig.session(upstream=upstream)

        rig.registry.drain("restart", 30.0)

        assert [upstream.drains for upstream in upstreams] == [[("restart", 30.0)]] * 2
        assert len(rig.registry.sessions) == 2


async def test_the_end_of_the_server_keeps_names_in_the_store() -> None:
    store = MemoryStateStore()
    async with registry_rig(store) as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        http = await rig.registry.claim(session, 1, SHOP)
        tcp = await rig.registry.claim(session, 2, ANY_PORT)
        waiter = Waiting()
        rig.registry.holds.join(http, waiter)

        rig.registry.drain("restart", 30.0)
        rig.registry.close("restart")
        rig.registry.lose_session(session, "its connection ends", is_clean=False)

        assert upstream.ends == [(Code.NONE, "restart")]
        assert waiter.ends == [False]
        assert (tcp.port, "restart") in rig.listeners.closed
        assert {lease.address for lease in await leases(rig)} == {HOST, str(tcp.port)}
        assert len(await store.load_sessions()) == 1
