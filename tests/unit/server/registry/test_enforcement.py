import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import pytest

from helpers.edge_rig import DOMAIN, RegistryRig, registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_server.access.authentication import Authenticator
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Grant, Limits, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import StoreError
from moleport_server.registry.claim import Claim
from moleport_server.registry.enforcement import Enforcement
from moleport_server.registry.live import Session, Tunnel
from moleport_server.store.base import TokenRow
from moleport_server.store.memory import MemoryStateStore

HTTP = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop")
TCP = Claim(protocol=TunnelProtocol.TCP, port=20_001)


class Store(MemoryStateStore):
    """The memory store, which can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False

    async def get_token(self, token_id: str) -> TokenRow | None:
        if self.is_broken:
            raise StoreError("broken")
        return await super().get_token(token_id)


@dataclass
class World:
    """A token with one policy and revisions 1 and 2, and agents that use them."""

    rig: RegistryRig
    store: Store
    authenticator: Authenticator
    enforcement: Enforcement
    changed: list[Tunnel]

    async def agent(
        self, revision: int = 1, *claims: Claim, peer: str = "192.0.2.7:5000"
    ) -> tuple[Session, ScriptedUpstream, list[Tunnel]]:
        upstream = ScriptedUpstream()
        self.rig.clock.advance(1)
        principal = await self.authenticator.authenticate(f"s{revision}", address="192.0.2.7")
        session = self.rig.session(principal, upstream=upstream, peer=peer)
        tunnels = []
        for number, claim in enumerate(claims, start=1):
            tunnel = await self.rig.registry.claim(session, number, claim)
            self.rig.registry.welcome(session, tunnel)
            tunnels.append(tunnel)
        return session, upstream, tunnels

    async def change_policy(self, **fields: Any) -> None:
        (row,) = await self.store.list_policies()
        policy = Policy(id="p1", **fields)
        assert await self.store.replace_policy(policy, version=row.policy.version)
        await self.enforcement.policy_changed("p1")

    async def change_token(self, **fields: Any) -> None:
        row = await self.store.get_token("t1")
        assert row is not None
        wish = replace(row.token, **fields)
        assert await self.store.replace_token(wish, version=row.token.version)
        await self.enforcement.token_changed("t1")

    @property
    def sessions(self) -> set[str]:
        return set(self.rig.registry.sessions)


@asynccontextmanager
async def world_of(**settings: Any) -> AsyncIterator[World]:
    store = Store()
    async with registry_rig(store, **settings) as rig:
        await store.create_policy(Policy(id="p1"))
        token = Token(id="t1", label="ci", created_at=rig.clock.now(), policy_ids=("p1",))
        await store.create_token(token)
        for revision in (1, 2):
            await store.put_credential(
                Credential(token_id="t1", revision=revision, sha256=_sha(f"s{revision}"))
            )
        authenticator = Authenticator(
            store,
            rig.clock,
            read_admin_token=lambda: None,
            limiter=KeyedLimiter(1.0, 10, rig.clock),
        )
        changed: list[Tunnel] = []
        rig.registry.notices.on_rules_changed = changed.append
        enforcement = Enforcement(rig.registry, authenticator, rig.clock)
        yield World(rig, store, authenticator, enforcement, changed)


def _sha(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of() as made:
        yield made


@pytest.mark.parametrize(
    ("fields", "lost", "says"),
    [
        ({"hostnames": ("till",)}, [0], "may not bind host name 'shop.tunnels.test'"),
        ({"protocols": (TunnelProtocol.HTTP,)}, [1], "may not use protocol tcp"),
        ({"tcp_ports": ((20_002, 20_003),)}, [1], "may not use port 20001"),
        ({"limits": Limits(max_tunnels=1)}, [1], "may have 1 tunnels at a time"),
        ({"hostnames": ("shop",), "limits": Limits(max_tunnels=2)}, [], ""),
    ],
    ids=["host names", "protocols", "ports", "too many", "nothing lost"],
)
async def test_a_changed_policy_takes_the_tunnels_that_it_leaves_out(
    world: World, fields: dict[str, Any], lost: list[int], says: str
) -> None:
    session, upstream, tunnels = await world.agent(1, HTTP, TCP)

    await world.change_policy(**fields)

    kept = [tunnel for number, tunnel in enumerate(tunnels) if number not in lost]
    assert list(session.tunnels.values()) == kept
    assert [tunnel for tunnel, _ in upstream.unbound] == [tunnels[number] for number in lost]
    assert all(says in reason for _, reason in upstream.unbound)
    assert world.sessions == {session.id}


async def test_a_changed_policy_takes_leased_names_too(world: World) -> None:
    session, _, _ = await world.agent(1, HTTP)
    world.rig.registry.lose_session(session, "gone", is_clean=False)

    await world.change_policy(hostnames=())

    assert not world.rig.registry.tunnels


async def test_agents_from_elsewhere_are_ended(world: World) -> None:
    inside, _, _ = await world.agent(1, peer="10.0.0.1:5000")
    _, upstream, _ = await world.agent(1, peer="192.0.2.9:5000")

    await world.change_policy(agent_cidrs=(ip_network("10.0.0.0/8"),))

    assert world.sessions == {inside.id}
    assert "may not be used from 192.0.2.9" in upstream.ends[0][1]


async def test_of_too_many_agents_the_newest_go(world: World) -> None:
    first, _, _ = await world.agent(1)
    _, upstream, _ = await world.agent(2)

    await world.change_token(limits=Limits(max_agents=1))

    assert world.sessions == {first.id}
    assert "may have 1 agents" in upstream.ends[0][1]


async def test_rules_and_limits_of_policies_hold_for_running_tunnels(world: World) -> None:
    _, _, (tunnel,) = await world.agent(1, HTTP)
    assert tunnel.rules.is_open
    assert tunnel.bounds is None
    networks = (ip_network("10.0.0.0/8"),)

    await world.change_policy(
        client_cidrs=networks,
        denied_client_cidrs=(ip_network("10.1.0.0/16"),),
        requires_tls=True,
        is_auth_unresolved=True,
        limits=Limits(request_body_bytes=7, bandwidth=1000),
    )

    assert tunnel in world.changed
    rules, bounds = tunnel.rules, tunnel.bounds
    assert (rules.allowed_cidrs, rules.requires_tls) == (networks, True)
    assert rules.denied_cidrs == (ip_network("10.1.0.0/16"),)
    assert rules.http_denied is not None
    assert bounds is not None
    assert (bounds.body_bytes, bounds.bandwidth.rate) == (7, 1000)
    assert bounds.tunnels == {tunnel}

    await world.change_policy()
    assert tunnel.rules.is_open
    assert (bounds.body_bytes, bounds.bandwidth.rate) == (-1, None)


async def test_tunnels_of_a_token_share_their_bounds_and_others_have_none(world: World) -> None:
    await world.change_policy(limits=Limits(max_connections_per_tunnel=5))
    _, _, (first, second) = await world.agent(1, HTTP, TCP)
    other = world.rig.session()
    free = await world.rig.registry.claim(other, 1, Claim(protocol=TunnelProtocol.HTTP))

    assert first.bounds is second.bounds
    assert first.bounds is not None
    assert first.bounds.tunnels == {first, second}
    assert free.bounds is None
    bounds = first.bounds
    await world.rig.registry.close_token("t1", "over")
    assert not bounds.tunnels


async def test_what_the_agent_wished_is_kept_under_a_policy(world: World) -> None:
    wish = replace(HTTP, allowed_cidrs=("10.0.0.0/8",))
    _, _, (tunnel,) = await world.agent(1, wish)

    await world.change_policy(client_cidrs=(ip_network("10.1.0.0/16"),))
    assert tunnel.rules.allowed_cidrs == (ip_network("10.1.0.0/16"),)
    await world.rig.written()
    (lease,) = await world.store.load_leases()
    assert "10.0.0.0/8" in lease.settings
    assert "10.1.0.0/16" not in lease.settings

    await world.change_policy()
    assert tunnel.rules.allowed_cidrs == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"suspended": True}, "suspended"),
        ({"expires_at": 1.0}, "expired"),
    ],
    ids=["suspended", "expired"],
)
async def test_a_token_that_proves_nothing_loses_everything(
    world: World, fields: dict[str, Any], says: str
) -> None:
    _, upstream, _ = await world.agent(1, HTTP)

    await world.change_token(**fields)

    assert not world.sessions
    assert not world.rig.registry.tunnels
    assert says in upstream.ends[0][1]


async def test_a_revision_that_ends_takes_only_its_own_sessions(world: World) -> None:
    _, upstream, _ = await world.agent(1, HTTP)
    second, _, _ = await world.agent(2, TCP)

    await world.store.delete_credential("t1", 1)
    await world.enforcement.token_changed("t1")

    assert world.sessions == {second.id}
    assert "revision 1 of the token was removed" in upstream.ends[0][1]
    assert [tunnel.label for tunnel in world.rig.registry.tunnels.values()] == ["20001"]


async def test_a_slot_with_another_secret_ends_the_sessions_of_the_first(world: World) -> None:
    await world.agent(1)
    second, _, _ = await world.agent(2)

    await world.enforcement.slot_replaced("t1", 1)

    assert world.sessions == {second.id}


async def test_an_end_that_was_known_comes_without_a_call(world: World) -> None:
    now = world.rig.clock.now()
    ending = Credential(token_id="t1", revision=1, sha256=_sha("s1"), not_after=now + 60)
    await world.store.put_credential(ending)
    await world.agent(1)
    second, _, _ = await world.agent(2)

    await world.enforcement.tick()
    assert len(world.sessions) == 2
    world.rig.clock.advance(60)
    await world.enforcement.tick()

    assert world.sessions == {second.id}


async def test_a_lifetime_that_a_policy_shortens_ends_old_sessions(world: World) -> None:
    await world.agent(1)
    world.rig.clock.advance(100)

    await world.change_policy(max_lifetime_seconds=50)

    assert not world.sessions


async def test_the_sweep_finds_what_no_call_announced(world: World) -> None:
    _, _, (tunnel,) = await world.agent(1, HTTP)
    admin = world.rig.session()
    (row,) = await world.store.list_policies()
    await world.store.replace_policy(Policy(id="p1", hostnames=()), version=row.policy.version)

    await world.enforcement.sweep()
    assert tunnel.id not in world.rig.registry.tunnels

    await world.store.delete_token("t1")
    await world.enforcement.sweep()
    assert world.sessions == {admin.id}


async def test_a_broken_store_ends_nobody(world: World) -> None:
    session, _, _ = await world.agent(1, HTTP)
    world.store.is_broken = True

    await world.enforcement.token_changed("t1")
    with pytest.raises(StoreError):
        await world.enforcement.sweep()

    assert world.sessions == {session.id}


async def test_a_restored_lease_has_the_rules_of_its_policies_before_anybody_comes(
    world: World,
) -> None:
    await world.change_policy(
        denied_client_cidrs=(ip_network("192.0.2.0/24"),), limits=Limits(bandwidth=5)
    )
    await world.agent(1, HTTP)
    await world.rig.written()

    async with registry_rig(world.store) as again:
        await again.registry.restore()
        tunnel = again.registry.lookup(f"shop.{DOMAIN}")

        assert tunnel is not None
        assert tunnel.token_label == "ci"
        assert tunnel.rules.denied_cidrs == (ip_network("192.0.2.0/24"),)
        assert tunnel.bounds is not None
        assert tunnel.bounds.bandwidth.rate == 5


async def test_a_policy_bounds_the_name_that_is_drawn(world: World) -> None:
    await world.change_policy(hostnames=("team-a-*", "*.example.org"))

    _, _, (tunnel,) = await world.agent(1, Claim(protocol=TunnelProtocol.HTTP))

    assert tunnel.label.startswith("team-a-")


async def test_the_grant_of_a_token_changes_under_its_agent(world: World) -> None:
    _, upstream, _ = await world.agent(1, HTTP)

    await world.change_token(grant=Grant(hostnames=("till",)))

    assert "may not bind host name" in upstream.unbound[0][1]
