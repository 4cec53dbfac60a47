"""Claims, takeovers, leases and what survives: design of sessions and bindings."""

import asyncio

import pytest

from helpers.clock import FakeClock
from helpers.edge_rig import DOMAIN, OpenListeners, RegistryRig, registry_rig
from helpers.upstream import ScriptedUpstream
from helpers.waiting import until
from moleport_server.domain.token import ADMIN, Credential, Grant, Limits, Principal, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    NameTaken,
    PortTaken,
    QuotaExceeded,
    StoreFull,
)
from moleport_server.registry.live import Tunnel
from moleport_server.registry.registry import Claim
from moleport_server.store.base import HistoryQuery, Lease, TunnelLogEntry
from moleport_server.store.memory import MemoryStateStore
from moleport_wire.hoody.frames import Code
from moleport_wire.passwords import hash_password

SHOP = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop")
ANY_NAME = Claim(protocol=TunnelProtocol.HTTP)
ANY_PORT = Claim(protocol=TunnelProtocol.TCP)
HOST = f"shop.{DOMAIN}"


def principal(name: str = "1", *, grant: Grant | None = None, **limits: int) -> Principal:
    token = Token(
        id=f"token-{name}",
        label=f"laptop {name}",
        grant=grant or Grant(),
        limits=Limits(**limits),
        created_at=0.0,
    )
    return Principal(token=token, revision=1)


async def issue(rig: RegistryRig, who: Principal) -> Principal:
    """Store the token, as the API does, so that leases of it may be kept."""
    assert who.token is not None
    await rig.store.create_token(
        who.token, Credential(token_id=who.token.id, revision=1, sha256=who.token.id)
    )
    return who


async def leases(rig: RegistryRig) -> list[Lease]:
    await rig.written()
    return await rig.store.load_leases()


async def history(rig: RegistryRig) -> list[TunnelLogEntry]:
    await rig.written()
    rows, _ = await rig.store.query_history(HistoryQuery(now=rig.clock.now()))
    return rows


class Waiting:
    def __init__(self) -> None:
        self.ends: list[bool] = []

    def hold_ended(self, *, returned: bool) -> None:
        self.ends.append(returned)


# Claiming


async def test_a_claimed_name_is_found_durable_and_in_the_history() -> None:
    async with registry_rig() as rig:
        session = rig.session()

        tunnel = await rig.registry.claim(session, 1, SHOP)

        assert rig.registry.lookup(HOST) is tunnel
        assert tunnel.public_url == f"https://{HOST}:8443"
        assert session.tunnels == {1: tunnel}
        (lease,) = await rig.store.load_leases()
        assert (lease.address, lease.session_id, lease.bind_id, lease.until) == (
            HOST,
            "S-1",
            1,
            None,
        )
        (row,) = await history(rig)
        assert (row.label, row.unregistered_at) == (HOST, None)


async def test_a_claimed_port_is_listened_on() -> None:
    async with registry_rig() as rig:
        tunnel = await rig.registry.claim(
            rig.session(), 1, Claim(protocol=TunnelProtocol.TCP, port=20_001)
        )

        assert rig.listeners.opened == [20_001]
        assert tunnel.public_url == f"tcp://{DOMAIN}:20001"
        assert tunnel.label == "20001"


async def test_random_names_and_ports_are_all_different() -> None:
    async with registry_rig(max_tunnels_per_session=100) as rig:
        session = rig.session()

        names = {(await rig.registry.claim(session, i, ANY_NAME)).hostname for i in range(50)}
        ports = {(await rig.registry.claim(session, 50 + i, ANY_PORT)).port for i in range(4)}

        assert len(names) == 50
        assert ports == {20_000, 20_001, 20_002, 20_003}
        with pytest.raises(PortTaken, match="no TCP ports available"):
            await rig.registry.claim(session, 99, ANY_PORT)


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, subdomain="www"), Forbidden, id="reserved"
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, hostname=f"control.{DOMAIN}"),
            Forbidden,
            id="our own host",
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, hostname="shop.example.com"),
            Forbidden,
            id="outside of our domains",
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, hostname=f"*.{DOMAIN}"), Forbidden, id="wildcard"
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, subdomain="-x-"), InvalidRequest, id="bad label"
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, subdomain="shop", allowed_cidrs=("10.0.0.1/8",)),
            InvalidRequest,
            id="bad network",
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, subdomain="shop", basic_auth=(("a", "plain"),)),
            InvalidRequest,
            id="bad hash",
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.TCP, port=80), InvalidRequest, id="port outside"
        ),
    ],
)
async def test_what_may_not_be_claimed_leaves_nothing_behind(
    claim: Claim, error: type[Exception]
) -> None:
    async with registry_rig() as rig:
        session = rig.session(await issue(rig, principal()))

        with pytest.raises(error):
            await rig.registry.claim(session, 1, claim)

        assert rig.registry.tunnels == {}
        assert await leases(rig) == []


async def test_a_name_of_another_token_is_taken() -> None:
    async with registry_rig() as rig:
        await rig.registry.claim(rig.session(await issue(rig, principal("1"))), 1, SHOP)
        other = rig.session(await issue(rig, principal("2")))

        with pytest.raises(NameTaken, match="already in use"):
            await rig.registry.claim(other, 1, SHOP)


async def test_a_name_cannot_be_claimed_twice_by_one_session() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        await rig.registry.claim(session, 1, SHOP)

        with pytest.raises(NameTaken, match="by this agent"):
            await rig.registry.claim(session, 2, SHOP)


@pytest.mark.parametrize(
    "claim",
    [
        Claim(protocol=TunnelProtocol.HTTP, hostname=HOST, is_wish=True),
        Claim(protocol=TunnelProtocol.HTTP, hostname="!", is_wish=True),
    ],
    ids=["taken", "malformed"],
)
async def test_a_wished_name_that_is_not_to_be_had_becomes_another_one(claim: Claim) -> None:
    async with registry_rig() as rig:
        await rig.registry.claim(rig.session(await issue(rig, principal("1"))), 1, SHOP)

        tunnel = await rig.registry.claim(rig.session(await issue(rig, principal("2"))), 1, claim)

        assert tunnel.hostname not in (None, HOST)


async def test_a_wish_from_before_the_grant_or_the_range_changed_becomes_another_one() -> None:
    async with registry_rig() as rig:
        narrow = Grant(hostnames=("ci-*",), tcp_ports=((20_001, 20_002),))
        session = rig.session(await issue(rig, principal("1", grant=narrow)))
        name = Claim(protocol=TunnelProtocol.HTTP, hostname=HOST, is_wish=True)

        named = await rig.registry.claim(session, 1, name)
        ports = [
            await rig.registry.claim(
                session, bind_id, Claim(protocol=TunnelProtocol.TCP, port=port, is_wish=True)
            )
            for bind_id, port in ((2, 80), (3, 20_003))
        ]

        assert named.hostname is not None
        assert named.hostname.startswith("ci-")
        assert {tunnel.port for tunnel in ports} == {20_001, 20_002}


async def test_a_wish_never_evicts_a_live_agent_of_the_same_token() -> None:
    async with registry_rig() as rig:
        first = await rig.registry.claim(rig.session(), 1, SHOP)
        port = await rig.registry.claim(rig.session(), 1, ANY_PORT)
        second = rig.session()
        wish = Claim(protocol=TunnelProtocol.HTTP, hostname=HOST, is_wish=True)
        port_wish = Claim(protocol=TunnelProtocol.TCP, port=port.port, is_wish=True)

        other = await rig.registry.claim(second, 1, wish)
        other_port = await rig.registry.claim(second, 2, port_wish)

        assert other is not first
        assert other_port is not port
        assert first.session is not None


async def test_a_port_that_another_program_uses_is_skipped_unless_asked_for() -> None:
    async with registry_rig() as rig:
        rig.listeners.taken = {20_000: PortTaken("port 20000 is in use by another program")}
        session = rig.session()

        with pytest.raises(PortTaken, match="another program"):
            await rig.registry.claim(session, 1, Claim(protocol=TunnelProtocol.TCP, port=20_000))
        drawn = await rig.registry.claim(session, 2, ANY_PORT)
        wished = await rig.registry.claim(
            session, 3, Claim(protocol=TunnelProtocol.TCP, port=20_000, is_wish=True)
        )

        assert 20_000 not in (drawn.port, wished.port)
        assert len(rig.registry.tunnels) == 2


async def test_a_listener_that_fails_oddly_leaves_the_port_free() -> None:
    async with registry_rig() as rig:
        rig.listeners.taken = {20_000: RuntimeError("no")}

        with pytest.raises(RuntimeError):
            await rig.registry.claim(
                rig.session(), 1, Claim(protocol=TunnelProtocol.TCP, port=20_000)
            )

        assert rig.registry.tunnels == {}


# Quotas


async def test_a_session_has_a_number_of_tunnels() -> None:
    async with registry_rig(max_tunnels_per_session=1) as rig:
        session = rig.session()
        await rig.registry.claim(session, 1, ANY_NAME)

        with pytest.raises(QuotaExceeded, match="max 1"):
            await rig.registry.claim(session, 2, ANY_NAME)


async def test_a_token_has_a_number_of_tunnels_over_all_sessions() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal(max_tunnels=1))
        first = rig.session(who)
        await rig.registry.claim(first, 1, ANY_NAME)

        with pytest.raises(QuotaExceeded, match="may have 1 tunnels"):
            await rig.registry.claim(rig.session(who), 1, ANY_NAME)

        rig.registry.unbind(first, 1, "released")
        await rig.registry.claim(rig.session(who), 1, ANY_NAME)


@pytest.mark.parametrize(
    "claim",
    [SHOP, Claim(protocol=TunnelProtocol.TCP, port=20_001)],
    ids=["name", "port"],
)
async def test_a_restarted_agent_at_its_limit_gets_its_address_back(claim: Claim) -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal(max_tunnels=1))
        tunnel = await rig.registry.claim(rig.session(who), 1, claim)

        assert await rig.registry.claim(rig.session(who), 1, claim) is tunnel


async def test_claims_at_the_same_time_do_not_exceed_a_quota() -> None:
    async with registry_rig() as rig:
        session = rig.session(await issue(rig, principal(max_tunnels=1)))
        rig.listeners.gate = asyncio.Event()

        async def claim(bind_id: int) -> Tunnel | QuotaExceeded:
            try:
                return await rig.registry.claim(session, bind_id, ANY_PORT)
            except QuotaExceeded as error:
                return error

        async with asyncio.TaskGroup() as group:
            claims = [group.create_task(claim(i)) for i in (1, 2)]
            await asyncio.sleep(0)
            rig.listeners.gate.set()

        assert sorted(type(task.result()).__name__ for task in claims) == [
            "QuotaExceeded",
            "Tunnel",
        ]


async def test_a_token_has_a_number_of_agents() -> None:
    async with registry_rig() as rig:
        who = principal(max_agents=1)
        rig.registry.check_admission(who)
        rig.session(who)

        with pytest.raises(QuotaExceeded, match="1 agents"):
            rig.registry.check_admission(who)
        rig.registry.check_admission(principal("2", max_agents=1))


async def test_the_server_has_a_number_of_sessions() -> None:
    async with registry_rig(max_sessions=1) as rig:
        rig.session()

        with pytest.raises(QuotaExceeded, match="session limit"):
            rig.registry.check_admission(ADMIN)


# Takeover of live names


async def test_a_new_agent_of_the_same_machine_takes_a_name_over_at_once() -> None:
    async with registry_rig() as rig:
        old = ScriptedUpstream()
        tunnel = await rig.registry.claim(rig.session(upstream=old), 1, SHOP)
        tunnel.request_count = 7
        rig.clock.advance(100)
        session = rig.session(peer="192.0.2.7:6000")

        again = await rig.registry.claim(session, 5, SHOP)

        assert again is tunnel
        assert (tunnel.session, tunnel.bind_id) == (session, 5)
        assert tunnel.request_count == 7
        assert old.probes == 0
        assert [reason for _, reason in old.unbound] == [
            "another agent of this token took the address over"
        ]
        assert len(await history(rig)) == 1


async def test_an_agent_elsewhere_that_does_not_answer_loses_the_name() -> None:
    async with registry_rig() as rig:
        tunnel = await rig.registry.claim(
            rig.session(upstream=ScriptedUpstream(alive=False)), 1, SHOP
        )
        for i in range(3):  # as often as it happens
            session = rig.session(peer=f"198.51.100.{i}:1", upstream=ScriptedUpstream(alive=False))

            assert await rig.registry.claim(session, 1, SHOP) is tunnel


async def test_two_live_agents_of_a_token_evict_each_other_once_a_minute() -> None:
    async with registry_rig() as rig:
        laptop, desk = "192.0.2.1:1", "198.51.100.1:1"
        await rig.registry.claim(rig.session(peer=laptop), 1, SHOP)
        second = rig.session(peer=desk)
        tunnel = await rig.registry.claim(second, 1, SHOP)

        with pytest.raises(NameTaken, match="by another agent of this token"):
            await rig.registry.claim(rig.session(peer=laptop), 1, SHOP)
        assert tunnel.session is second
        rig.clock.advance(61)
        third = rig.session(peer=laptop)
        await rig.registry.claim(third, 1, SHOP)

        assert tunnel.session is third


async def test_an_owner_that_leaves_while_it_is_probed_leaves_the_name() -> None:
    async with registry_rig() as rig:

        class Leaving(ScriptedUpstream):
            async def is_alive(self, timeout_seconds: float) -> bool:
                rig.registry.lose_session(owner, "lost", is_clean=False)
                return True

        owner = rig.session(upstream=Leaving(), peer="192.0.2.1:1")
        tunnel = await rig.registry.claim(owner, 1, SHOP)
        session = rig.session(peer="198.51.100.1:1")

        assert await rig.registry.claim(session, 1, SHOP) is tunnel
        assert tunnel.session is session


async def test_ports_are_taken_over_like_names() -> None:
    async with registry_rig() as rig:
        claim = Claim(protocol=TunnelProtocol.TCP, port=20_002)
        tunnel = await rig.registry.claim(rig.session(), 1, claim)
        session = rig.session()

        assert await rig.registry.claim(session, 4, claim) is tunnel
        assert rig.listeners.opened == [20_002]
        assert rig.listeners.closed == []


# Leases


async def test_a_lost_session_keeps_its_names_for_its_token() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal())
        session = rig.session(who)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        left: list[Tunnel] = []
        rig.registry.on_agent_left = left.append

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
        rig.registry.on_tunnel_closed = closed.append
        waiter = Waiting()
        rig.registry.lose_session(session, "lost", is_clean=False)
        rig.registry.holds.join(tunnel, waiter)

        rig.clock.advance(59)
        rig.registry._end_leases()
        assert rig.registry.tunnels
        rig.clock.advance(2)
        rig.registry._end_leases()

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


async def test_a_session_without_tunnels_leaves_nothing() -> None:
    async with registry_rig() as rig:
        session = rig.session()

        rig.registry.lose_session(session, "lost", is_clean=False)
        rig.registry.lose_session(session, "lost again", is_clean=False)

        await rig.written()
        assert await rig.store.load_sessions() == []
        assert not rig.registry.find_resumable(session.id, ADMIN)


async def test_held_visitors_go_on_when_the_agent_is_welcome() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        waiter = Waiting()
        rig.registry.holds.join(tunnel, waiter)
        returned: list[Tunnel] = []
        rig.registry.on_agent_returned = returned.append
        again = rig.session()

        await rig.registry.claim(again, 1, SHOP)
        assert waiter.ends == []
        rig.registry.welcome(again, tunnel)

        assert waiter.ends == [True]
        assert returned == [tunnel]


# Resume


async def test_a_resumed_session_has_its_tunnels_again() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 3, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        assert rig.registry.find_resumable(session.id, ADMIN)
        again = rig.session(session_id=session.id, is_open=False)

        tunnels = rig.registry.resume_session(again)
        rig.registry.attach(again, tunnels)

        assert tunnels == [tunnel]
        assert again.tunnels == {3: tunnel}
        assert tunnel.lease_until is None
        (lease,) = await leases(rig)
        assert lease.until is None


async def test_a_session_that_still_looks_alive_is_resumed_from_anywhere() -> None:
    async with registry_rig() as rig:
        old = ScriptedUpstream()
        session = rig.session(upstream=old)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        again = rig.session(session_id=session.id, peer="198.51.100.1:1", is_open=False)

        rig.registry.attach(again, rig.registry.resume_session(again))
        rig.registry.lose_session(session, "its old connection breaks", is_clean=False)

        assert old.ends == [(Code.NONE, "resumed on another connection")]
        assert tunnel.session is again
        assert rig.registry.sessions == {session.id: again}


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "parked"])
async def test_nobody_resumes_the_session_of_another_token(is_live: bool) -> None:
    async with registry_rig() as rig:
        session = rig.session(await issue(rig, principal("1")))
        await rig.registry.claim(session, 1, SHOP)
        if not is_live:
            rig.registry.lose_session(session, "lost", is_clean=False)

        assert rig.registry.find_resumable(session.id, principal("1"))
        assert not rig.registry.find_resumable(session.id, principal("2"))
        assert not rig.registry.find_resumable(session.id, ADMIN)
        assert not rig.registry.find_resumable("S-unknown", principal("1"))


# Restart


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
        rig.registry._end_leases()
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


# A store that fails


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


async def test_a_session_that_ends_while_its_claim_is_written_keeps_the_name_as_a_lease() -> None:
    class SlowStore(MemoryStateStore):
        gate = asyncio.Event()

        async def save_lease(self, lease: Lease) -> None:
            await self.gate.wait()
            await super().save_lease(lease)

    store = SlowStore()
    async with registry_rig(store) as rig:
        session = rig.session()
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(_failure(rig.registry.claim(session, 1, SHOP)))
            await until(lambda: rig.registry.tunnels)
            rig.registry.lose_session(session, "lost", is_clean=False)
            store.gate.set()

        assert isinstance(claim.result(), NameTaken)
        assert rig.registry.count_leases() == 1
        assert (await leases(rig))[0].until is not None


async def test_a_session_that_ends_while_its_port_opens_leaves_the_port_free() -> None:
    async with registry_rig() as rig:
        rig.listeners.gate = asyncio.Event()
        session = rig.session()
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(_failure(rig.registry.claim(session, 1, ANY_PORT)))
            await until(lambda: rig.registry.tunnels)
            rig.registry.lose_session(session, "lost", is_clean=False)
            rig.listeners.gate.set()

        assert isinstance(claim.result(), PortTaken)
        assert rig.registry.tunnels == {}
        assert rig.listeners.closed == [(20_000, "the session ended")]


async def _failure(work: object) -> Exception | None:
    try:
        await work  # type: ignore[misc]  # a coroutine
    except (NameTaken, PortTaken) as error:
        return error
    return None


# Lookup


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
        rig.registry._end_leases()
        assert rig.registry.lookup(HOST) is wild


async def test_looking_for_many_unknown_names_costs_a_bounded_memory() -> None:
    async with registry_rig() as rig:
        for i in range(5000):
            assert rig.registry.lookup(f"n{i}.{DOMAIN}") is None

        assert len(rig.registry._routes) <= 4096


# Closing


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


async def test_closing_a_token_ends_its_sessions_leases_and_resumes() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal())
        upstream = ScriptedUpstream()
        await rig.registry.claim(rig.session(who, upstream=upstream), 1, SHOP)
        parked = rig.session(who)
        await rig.registry.claim(parked, 1, ANY_NAME)
        rig.registry.lose_session(parked, "lost", is_clean=False)
        other = await rig.registry.claim(rig.session(), 1, ANY_NAME)

        await rig.registry.close_token("token-1", "the token was deleted")

        assert upstream.ends == [(Code.PROTOCOL_ERROR, "the token was deleted")]
        assert list(rig.registry.tunnels.values()) == [other]
        assert not rig.registry.find_resumable(parked.id, who)


async def test_a_closed_session_is_told_why_and_its_tunnels_are_released() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        await rig.registry.claim(session, 1, SHOP)

        await rig.registry.close_session(session, "closed by the admin")
        await rig.registry.close_session(session, "again")

        assert upstream.ends == [(Code.PROTOCOL_ERROR, "closed by the admin")]
        assert rig.registry.sessions == {}
        assert rig.registry.tunnels == {}


async def test_a_drained_session_ends_when_its_streams_have() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        stream = upstream.open_stream(tunnel, _Quiet(), "192.0.2.9:1")

        await rig.registry.close_session(session, "drained", drain_seconds=30)
        assert upstream.drains == [("drained", 30)]
        assert upstream.ends == []
        stream.reset(Code.CANCEL)

        await until(lambda: upstream.ends)


async def test_a_drained_session_ends_at_the_deadline() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        upstream.open_stream(tunnel, _Quiet(), "192.0.2.9:1")
        await rig.registry.close_session(session, "drained", drain_seconds=30)
        await asyncio.sleep(0)  # it begins

        rig.clock.advance(31)

        await until(lambda: upstream.ends)


class _Quiet:
    def stream_data(self, data: object) -> None: ...
    def stream_eof(self) -> None: ...
    def stream_reset(self, code: int, reason: str) -> None: ...
    def stream_pause_writing(self) -> None: ...
    def stream_resume_writing(self) -> None: ...


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


async def test_what_happens_is_published_for_those_who_watch() -> None:
    async with registry_rig() as rig:
        watcher = rig.registry.events.watch()
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.attach(again, rig.registry.resume_session(again))
        await rig.registry.close_tunnel(tunnel, "deleted")
        rig.registry.lose_session(again, "goodbye", is_clean=True)

        kinds = []
        async with asyncio.timeout(3):
            async for event in watcher:
                kinds.append(event.kind)
                if len(kinds) == 6:
                    break
        assert kinds == [
            "session.opened",
            "tunnel.opened",
            "session.parked",
            "session.resumed",
            "tunnel.closed",
            "session.closed",
        ]
