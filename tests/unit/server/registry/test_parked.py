"""Sessions that wait for their agents."""

from helpers.claimants import HOST, SHOP, issue, principal
from helpers.edge_rig import registry_rig


async def test_a_session_is_forgotten_when_its_last_tunnel_went_to_another_one() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal())
        lost = rig.session(who)
        await rig.registry.claim(lost, 1, SHOP)
        rig.registry.lose_session(lost, "lost", is_clean=False)
        assert set(rig.registry.parked) == {lost.id}
        fresh = rig.session(who)

        await rig.registry.claim(fresh, 1, SHOP)

        assert rig.registry.parked == {}
        assert lost.id in rig.registry.tombstones
        await rig.written()
        assert [session.id for session in await rig.store.load_sessions()] == [fresh.id]


async def test_a_parked_session_is_released_with_everything_it_waits_for() -> None:
    async with registry_rig() as rig:
        lost = rig.session()
        await rig.registry.claim(lost, 1, SHOP)
        rig.registry.lose_session(lost, "lost", is_clean=False)

        assert rig.registry.release_parked(lost.id, "closed by its owner")
        assert not rig.registry.release_parked(lost.id, "again")

        assert rig.registry.lookup(HOST) is None
        assert rig.registry.parked == {}
        assert lost.id in rig.registry.tombstones
        await rig.written()
        assert await rig.store.load_sessions() == []
