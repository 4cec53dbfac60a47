"""Random addresses that wait for the client that had them."""

from helpers.claimants import principal
from helpers.edge_rig import registry_rig
from moleport_server.agents.rustunnel.keepsakes import find_kept, keepsake_of
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Session, Tunnel

HTTP = TunnelProtocol.HTTP
ADDRESS = "localhost:3000"


async def test_an_address_waits_for_the_same_token_machine_class_and_service() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        drawn = Claim(protocol=HTTP, keepsake=keepsake_of(session, ADDRESS))
        tunnel = await rig.registry.claim(session, 1, drawn)

        def found(
            session: Session, protocol: TunnelProtocol = HTTP, local_addr: str = ADDRESS
        ) -> Tunnel | None:
            keepsake = keepsake_of(session, local_addr)
            return find_kept(rig.registry.tunnels.values(), session, protocol, keepsake)

        assert found(session) is None  # in use

        rig.registry.lose_session(session, "gone", is_clean=False)

        assert found(rig.session(peer="192.0.2.7:9")) is tunnel
        assert found(rig.session(peer="192.0.2.8:9")) is None
        assert found(rig.session(), TunnelProtocol.TCP) is None
        assert found(rig.session(), local_addr="localhost:4000") is None
        assert found(rig.session(principal("other"))) is None


async def test_an_address_that_was_taken_by_name_is_kept_for_nobody() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        keepsake = keepsake_of(session, ADDRESS)
        tunnel = await rig.registry.claim(session, 1, Claim(protocol=HTTP, keepsake=keepsake))
        rig.registry.lose_session(session, "gone", is_clean=False)

        by_name = rig.session()
        await rig.registry.claim(by_name, 1, Claim(protocol=HTTP, hostname=tunnel.hostname))
        rig.registry.lose_session(by_name, "gone", is_clean=False)

        tunnels = rig.registry.tunnels.values()
        assert find_kept(tunnels, rig.session(), HTTP, keepsake) is None
