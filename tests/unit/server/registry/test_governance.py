"""The rules and limits of a token, in each of its tunnels; test_enforcement.py changes them live."""

from helpers.claimants import ANY_NAME, SHOP, issue, principal
from helpers.edge_rig import registry_rig
from moleport_server.registry.live import Tunnel


async def test_tunnels_of_one_token_share_its_limits() -> None:
    async with registry_rig() as rig:
        session = rig.session(await issue(rig, principal(max_connections=3)))
        first = await rig.registry.claim(session, 1, SHOP)
        second = await rig.registry.claim(session, 2, ANY_NAME)

        assert first.bounds is not None
        assert first.bounds is second.bounds
        assert first.bounds.tunnels == {first, second}
        assert first.bounds.connections == 3


async def test_a_token_without_limits_costs_its_tunnels_nothing() -> None:
    async with registry_rig() as rig:
        tunnel = await rig.registry.claim(rig.session(await issue(rig, principal())), 1, SHOP)

        assert tunnel.bounds is None


async def test_limits_are_forgotten_with_the_last_tunnel_and_begin_anew() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal(max_connections=3))
        session = rig.session(who)
        gone = await rig.registry.claim(session, 1, SHOP)
        await rig.registry.close_tunnel(gone, "deleted")

        again = await rig.registry.claim(session, 1, SHOP)

        assert gone.bounds is not None
        assert gone.bounds.tunnels == set()
        assert again.bounds is not gone.bounds


async def test_the_edge_is_told_of_other_rules_once_a_tunnel_is_to_be_found() -> None:
    async with registry_rig() as rig:
        told: list[Tunnel] = []
        rig.registry.notices.on_rules_changed = told.append
        before = await issue(rig, principal())
        tunnel = await rig.registry.claim(rig.session(before), 1, SHOP)
        assert told == []

        rig.registry.renew_token(principal(max_connections=1))

        assert told == [tunnel]
        assert tunnel.bounds is not None
