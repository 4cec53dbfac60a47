"""Random addresses that wait for the client that had them."""

from helpers.edge_rig import registry_rig
from moleport_server.agents.rustunnel.keepsakes import PRUNE_ABOVE, Keepsakes
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.claim import Claim

HTTP = TunnelProtocol.HTTP
ADDRESS = "localhost:3000"


async def test_an_address_waits_for_the_same_token_machine_class_and_service() -> None:
    async with registry_rig() as rig:
        keepsakes = Keepsakes(rig.registry)
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, Claim(protocol=HTTP))
        keepsakes.keep(session, tunnel, ADDRESS)
        assert keepsakes.find(session, HTTP, ADDRESS) is None  # in use

        rig.registry.lose_session(session, "gone", is_clean=False)

        assert keepsakes.find(rig.session(peer="192.0.2.7:9"), HTTP, ADDRESS) is tunnel
        assert keepsakes.find(rig.session(peer="192.0.2.8:9"), HTTP, ADDRESS) is None
        assert keepsakes.find(rig.session(), TunnelProtocol.TCP, ADDRESS) is None
        assert keepsakes.find(rig.session(), HTTP, "localhost:4000") is None


async def test_addresses_of_tunnels_that_are_gone_are_forgotten() -> None:
    async with registry_rig(max_tunnels_per_session=10_000) as rig:
        keepsakes = Keepsakes(rig.registry)
        session = rig.session()
        for number in range(PRUNE_ABOVE + 50):
            tunnel = await rig.registry.claim(session, number, Claim(protocol=HTTP))
            keepsakes.keep(session, tunnel, ADDRESS)
            await rig.registry.close_tunnel(tunnel, "over")

        assert keepsakes.find(session, HTTP, ADDRESS) is None
        assert len(keepsakes._owners) <= PRUNE_ABOVE + 2  # and one live tunnel
