"""How long an address waits, and what ends with it."""

import pytest

from helpers.claimants import ANY_PORT, HOST, SHOP, Waiting, history, issue, leases, principal
from helpers.edge_rig import registry_rig
from helpers.waiting import until
from moleport_server.domain.token import ADMIN
from moleport_server.errors import (
    NameTaken,
)
from moleport_server.registry.live import Tunnel


async def test_a_lost_session_keeps_its_names_for_its_token() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal())
        session = rig.session(who)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        left: list[Tunnel] = []
        rig.registry.notices.on_agent_left = left.append

        rig.registry.lose_session(session, "lost", is_clean=False)

        assert rig.registry.lookup(HOST) is tunnel
        assert tunnel.session is None
        assert tunnel.may_hold
        assert left == [tunnel]
        assert rig.registry.count_leases() == 1
        (lease,) = await leases(rig)
        assert lease.until == rig.clock.now() + 60
        with pytest.raises(NameTaken):
            await rig.registry.claim(rig.session(await issue(rig, principal("2"))), 1, SHOP)
        assert await rig.registry.claim(rig.session(who), 9, SHOP) is tunnel
        assert tunnel.lease_until is None


async def test_a_lease_ends_in_time_with_everything_that_belongs_to_it() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, ANY_PORT)
        closed: list[Tunnel] = []
        rig.registry.notices.on_tunnel_closed = closed.append
        waiter = Waiting()
        rig.registry.lose_session(session, "lost", is_clean=False)
        rig.registry.holds.join(tunnel, waiter)

        rig.clock.advance(59)
        rig.registry._leases.end_due()
        assert rig.registry.tunnels
        rig.clock.advance(2)
        rig.registry._leases.end_due()

        assert rig.registry.tunnels == {}
        assert closed == [tunnel]
        assert waiter.ends == [False]
        assert rig.listeners.closed == [(tunnel.port, "the lease is over")]
        assert await leases(rig) == []
        assert await rig.store.load_sessions() == []
        (row,) = await history(rig)
        assert row.unregistered_at == rig.clock.now()
        assert not rig.registry.find_resumable(session.id, ADMIN)


async def test_a_lease_ends_by_itself() -> None:
    async with registry_rig(lease_seconds=0.0) as rig:
        session = rig.session()
        await rig.registry.claim(session, 1, SHOP)

        rig.registry.lose_session(session, "lost", is_clean=False)

        await until(lambda: not rig.registry.tunnels)


async def test_a_goodbye_keeps_the_names_but_not_the_hold_nor_the_session() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        waiter = Waiting()
        rig.registry.holds.join(tunnel, waiter)

        rig.registry.lose_session(session, "goodbye", is_clean=True)

        assert waiter.ends == [False]
        assert not tunnel.may_hold
        assert rig.registry.lookup(HOST) is tunnel
        assert not rig.registry.find_resumable(session.id, ADMIN)
        await rig.registry.claim(rig.session(), 1, SHOP)
        assert tunnel.may_hold
