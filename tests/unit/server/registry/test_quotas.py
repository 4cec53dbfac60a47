"""How many sessions and tunnels may exist."""

import asyncio

import pytest

from helpers.captures import make_tunnel
from helpers.claimants import ANY_NAME, ANY_PORT, SHOP, issue, principal
from helpers.edge_rig import DOMAIN, registry_rig
from moleport_server.domain.token import ADMIN
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    QuotaExceeded,
)
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Tunnel
from moleport_server.registry.quotas import surplus_sessions, surplus_tunnels


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


def test_of_too_many_tunnels_the_newest_go_and_leased_ones_do_not_count() -> None:
    made = [make_tunnel(f"{age}.{DOMAIN}") for age in range(4)]
    for age, tunnel in enumerate(made):
        tunnel.opened_at = 100.0 - age
    made[3].lease_until = 1.0

    assert surplus_tunnels(principal(max_tunnels=2), made) == [made[0]]
    assert surplus_tunnels(principal(), made) == []


async def test_of_too_many_agents_the_newest_go() -> None:
    async with registry_rig() as rig:
        who = principal(max_agents=1)
        sessions = [rig.session(who, is_open=False) for _ in range(3)]
        for age, session in enumerate(sessions):
            session.connected_at = 100.0 - age
        foreign = rig.session(is_open=False)

        assert surplus_sessions(who, [*sessions, foreign]) == [sessions[1], sessions[0]]
        assert surplus_sessions(principal(), sessions) == []
