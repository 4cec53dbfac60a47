"""What agents are given for what they ask."""

import asyncio

import pytest

from helpers.claimants import ANY_NAME, ANY_PORT, HOST, SHOP, history, issue, leases, principal
from helpers.edge_rig import DOMAIN, registry_rig
from helpers.upstream import ScriptedUpstream
from helpers.waiting import until
from moleport_server.domain.token import Grant
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    NameTaken,
    PortTaken,
)
from moleport_server.registry.claim import Claim
from moleport_server.store.base import Lease
from moleport_server.store.memory import MemoryStateStore


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


async def test_a_session_that_has_ended_is_given_nothing() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        rig.registry.lose_session(session, "lost", is_clean=False)

        for claim in (SHOP, ANY_PORT):
            with pytest.raises(NameTaken, match="ended"):
                await rig.registry.claim(session, 1, claim)

        assert rig.registry.tunnels == {}


async def test_a_session_that_is_resumed_while_its_port_opens_is_given_no_other_port() -> None:
    async with registry_rig() as rig:
        rig.listeners.gate = asyncio.Event()
        session = rig.session()
        again = rig.session(session_id=session.id, is_open=False)
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(_failure(rig.registry.claim(session, 1, ANY_PORT)))
            await until(lambda: rig.registry.tunnels)
            resumed = rig.registry.resume_session(again)
            rig.listeners.gate.set()

        assert resumed == []  # its agent was not told about that port
        assert isinstance(claim.result(), PortTaken)
        assert rig.registry.tunnels == {}
        assert (session.tunnels, again.tunnels) == ({}, {})


async def test_a_port_that_opens_is_taken_over_by_nobody() -> None:
    async with registry_rig() as rig:
        rig.listeners.gate = asyncio.Event()
        port = Claim(protocol=TunnelProtocol.TCP, port=20_001)
        wish = Claim(protocol=TunnelProtocol.TCP, port=20_001, is_wish=True)
        first, second = rig.session(), rig.session()
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(rig.registry.claim(first, 1, port))
            await until(lambda: rig.registry.tunnels)
            refused = await _failure(rig.registry.claim(second, 1, port))
            other = group.create_task(rig.registry.claim(second, 2, wish))
            rig.listeners.gate.set()

        assert isinstance(refused, NameTaken)
        assert claim.result().session is first
        assert other.result().port != 20_001
        assert second.tunnels == {2: other.result()}


async def test_a_session_that_ends_while_its_rival_is_asked_takes_nothing() -> None:
    class Slow(ScriptedUpstream):
        async def is_alive(self, timeout_seconds: float) -> bool:
            await answer.wait()
            return False

    answer = asyncio.Event()
    async with registry_rig() as rig:
        tunnel = await rig.registry.claim(rig.session(upstream=Slow()), 1, SHOP)
        owner = tunnel.session
        session = rig.session(peer="198.51.100.1:1")
        async with asyncio.TaskGroup() as group:
            claim = group.create_task(_failure(rig.registry.claim(session, 1, SHOP)))
            await asyncio.sleep(0)
            rig.registry.lose_session(session, "lost", is_clean=False)
            answer.set()

        assert isinstance(claim.result(), NameTaken)
        assert tunnel.session is owner
        assert session.tunnels == {}
