"""Who gets an address that somebody has."""

import asyncio
import contextlib

import pytest

from helpers.captures import make_tunnel
from helpers.claimants import ANY_PORT, HOST, SHOP, history, issue, principal
from helpers.edge_rig import registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    NameTaken,
)
from moleport_server.registry.claim import Claim
from moleport_server.registry.contests import is_to_be_had
from moleport_server.registry.live import Session


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


async def test_of_two_who_wait_for_the_same_silent_owner_the_second_contests_the_first() -> None:
    async with registry_rig() as rig:
        both_ask = asyncio.Barrier(2)

        class Silent(ScriptedUpstream):
            async def is_alive(self, timeout_seconds: float) -> bool:
                await both_ask.wait()
                return False

        await rig.registry.claim(rig.session(upstream=Silent(), peer="192.0.2.1:1"), 1, SHOP)
        upstreams = [ScriptedUpstream(), ScriptedUpstream()]
        sessions = [
            rig.session(peer=f"198.51.100.{number}:1", upstream=upstream)
            for number, upstream in enumerate(upstreams)
        ]

        async def claim(session: Session) -> None:
            with contextlib.suppress(NameTaken):  # taken away again before it was written
                await rig.registry.claim(session, 1, SHOP)

        async with asyncio.TaskGroup() as claims:
            for session in sessions:
                claims.create_task(claim(session))

        # Whoever lost it was told, and does not believe any more that it has it.
        (tunnel,) = rig.registry.tunnels.values()
        (winner,) = (session for session in sessions if session.tunnels)
        assert tunnel.session is winner
        assert [len(upstream.unbound) for upstream in upstreams] == [
            int(session is not winner) for session in sessions
        ]


async def test_a_name_that_another_token_got_while_its_owner_was_probed_is_taken() -> None:
    async with registry_rig() as rig:
        theirs = rig.session(await issue(rig, principal("2")))
        ours = await issue(rig, principal("1"))

        class Leaving(ScriptedUpstream):
            async def is_alive(self, timeout_seconds: float) -> bool:
                await rig.registry.close_tunnel(tunnel, "deleted")
                await rig.registry.claim(theirs, 1, SHOP)
                return False

        tunnel = await rig.registry.claim(
            rig.session(ours, upstream=Leaving(), peer="192.0.2.1:1"), 1, SHOP
        )

        with pytest.raises(NameTaken, match="already in use"):
            await rig.registry.claim(rig.session(ours, peer="198.51.100.1:1"), 1, SHOP)
        assert [t.session for t in rig.registry.tunnels.values()] == [theirs]


async def test_ports_are_taken_over_like_names() -> None:
    async with registry_rig() as rig:
        claim = Claim(protocol=TunnelProtocol.TCP, port=20_002)
        tunnel = await rig.registry.claim(rig.session(), 1, claim)
        session = rig.session()

        assert await rig.registry.claim(session, 4, claim) is tunnel
        assert rig.listeners.opened == [20_002]
        assert rig.listeners.closed == []


@pytest.mark.parametrize(
    ("holder", "is_live", "is_wish", "is_ours"),
    [
        pytest.param("ours", True, False, True, id="asked for by name, live"),
        pytest.param("ours", False, False, True, id="asked for by name, leased"),
        pytest.param("ours", True, True, False, id="wished for, live"),
        pytest.param("ours", False, True, True, id="wished for, leased"),
        pytest.param("theirs", True, False, False, id="another token's, live"),
        pytest.param("theirs", False, False, False, id="another token's, leased"),
        pytest.param("theirs", False, True, False, id="another token's, leased, wished for"),
    ],
)
async def test_what_a_token_could_have(
    holder: str, is_live: bool, is_wish: bool, is_ours: bool
) -> None:
    async with registry_rig() as rig:
        tunnel = make_tunnel(token_id=holder, session=rig.session() if is_live else None)

        assert is_to_be_had(tunnel, "ours", is_wish=is_wish) is is_ours


@pytest.mark.parametrize("is_wish", [True, False])
def test_an_address_that_nobody_has_is_to_be_had(is_wish: bool) -> None:
    assert is_to_be_had(None, "ours", is_wish=is_wish)
