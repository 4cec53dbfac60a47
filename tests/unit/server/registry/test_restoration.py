"""What a restart brings back."""

import pytest

from helpers.claimants import ANY_PORT, HOST, history, issue, leases, principal
from helpers.clock import FakeClock
from helpers.edge_rig import OpenListeners, registry_rig
from moleport_server.domain.token import ADMIN
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    PortTaken,
)
from moleport_server.registry.claim import Claim
from moleport_server.store.memory import MemoryStateStore
from moleport_wire.passwords import hash_password


async def test_a_restart_keeps_names_ports_rules_and_sessions_for_a_full_lease() -> None:
    store = MemoryStateStore()
    password = str(hash_password("secret", b"0123456789abcdef"))
    guarded = Claim(
        protocol=TunnelProtocol.HTTP,
        subdomain="shop",
        basic_auth=(("ann", password),),
        allowed_cidrs=("192.0.2.0/24",),
        host_header="localhost",
    )
    async with registry_rig(store) as rig:
        session = rig.session(await issue(rig, principal()))
        http = await rig.registry.claim(session, 1, guarded)
        tcp = await rig.registry.claim(session, 2, ANY_PORT)
        await rig.written()
        before = rig.clock.now()

    async with registry_rig(store, clock=FakeClock(now=before + 1000)) as rig:
        await rig.registry.restore()

        shop = rig.registry.lookup(HOST)
        assert shop is not None
        assert (shop.id, shop.rules, shop.host_header) == (http.id, http.rules, "localhost")
        assert (shop.token_id, shop.token_label) == ("token-1", "laptop 1")
        assert shop.opened_at == http.opened_at
        assert rig.listeners.opened == [tcp.port]
        assert rig.registry.count_leases() == 2
        assert all(lease.until == before + 1060 for lease in await leases(rig))
        assert rig.registry.find_resumable(session.id, principal())
        again = rig.session(principal(), session_id=session.id, is_open=False)
        rig.registry.attach(again, rig.registry.resume_session(again))
        assert set(again.tunnels) == {1, 2}

        rig.clock.advance(61)
        rig.registry._leases.end_due()
        assert len(rig.registry.tunnels) == 2


async def test_a_restored_port_that_somebody_else_took_is_released(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStateStore()
    async with registry_rig(store) as rig:
        tunnel = await rig.registry.claim(rig.session(), 1, ANY_PORT)
        await rig.written()
    listeners = OpenListeners()
    assert tunnel.port is not None
    listeners.taken[tunnel.port] = PortTaken("in use by another program")

    async with registry_rig(store, listeners=listeners) as rig:
        await rig.registry.restore()

        assert rig.registry.tunnels == {}
        assert await leases(rig) == []
        (row,) = await history(rig)
        assert row.unregistered_at is not None
        assert "port of a lease is taken" in caplog.text


async def test_restored_sessions_without_tunnels_are_forgotten() -> None:
    store = MemoryStateStore()
    async with registry_rig(store) as rig:
        session = rig.session()
        await rig.written()

    async with registry_rig(store) as rig:
        await rig.registry.restore()

        assert not rig.registry.find_resumable(session.id, ADMIN)
        await rig.written()
        assert await store.load_sessions() == []
