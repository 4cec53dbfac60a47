"""Which tunnel a host name leads to."""

from helpers.claimants import HOST, SHOP
from helpers.edge_rig import DOMAIN, registry_rig
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.claim import Claim


async def test_an_exact_name_wins_over_a_wildcard_even_while_it_is_leased() -> None:
    async with registry_rig() as rig:
        wild = await rig.registry.claim(
            rig.session(), 1, Claim(protocol=TunnelProtocol.HTTP, hostname=f"*.{DOMAIN}")
        )
        assert rig.registry.lookup(HOST) is wild
        session = rig.session()
        exact = await rig.registry.claim(session, 1, SHOP)

        assert rig.registry.lookup(HOST) is exact
        assert rig.registry.lookup(f"other.{DOMAIN}") is wild
        assert rig.registry.lookup(f"a.b.{DOMAIN}") is wild
        assert rig.registry.lookup(DOMAIN) is None
        rig.registry.lose_session(session, "lost", is_clean=False)
        assert rig.registry.lookup(HOST) is exact
        rig.clock.advance(61)
        rig.registry._leases.end_due()
        assert rig.registry.lookup(HOST) is wild


async def test_looking_for_many_unknown_names_costs_a_bounded_memory() -> None:
    async with registry_rig() as rig:
        for i in range(5000):
            assert rig.registry.lookup(f"n{i}.{DOMAIN}") is None

        assert len(rig.registry._bindings._routes) <= 4096
