from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from helpers.kube_api import CLUSTER_POLICIES, NAMESPACES, POLICIES, TOKENS, KubeApi
from helpers.kube_client import open_client
from helpers.operator_records import FACTS, body
from moleport_operator import upkeep as module
from moleport_operator.breaker import FAILURES_TO_OPEN, Breaker
from moleport_operator.cache import Cache
from moleport_operator.clock import SystemClock
from moleport_operator.controller import Controller
from moleport_operator.errors import ServerUnavailable
from moleport_operator.kube import Kube
from moleport_operator.metrics import Instruments
from moleport_operator.plan.records import ConnectionFacts, Owner, Usage
from moleport_operator.plan.token import RETAINED
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import POLICIES as OUR_POLICIES
from moleport_operator.resources import TOKENS as OUR_TOKENS
from moleport_operator.server_bodies import ListedToken, ServerFacts
from moleport_operator.upkeep import Upkeep

OURS = "cluster-1"
SHOP = Key("tunneltokens", "default", "shop")


class OwnedServer:
    """The server's side, as lists."""

    def __init__(self) -> None:
        self.tokens: list[ListedToken] = []
        self.policies: list[tuple[str, Owner]] = []
        self.is_down = False
        self.probes = 0
        self.pages: list[int] = []
        """Sizes of the pages that were asked for."""

    async def facts(self) -> ServerFacts:
        self.probes += 1
        if self.is_down:
            raise ServerUnavailable("away")
        return ServerFacts(instance_id="i", version="1", domains=("tunnels.test",), https_port=443)

    async def list_tokens(self, owner_cluster: str) -> list[ListedToken]:
        return [row for row in self.tokens if row.owner.cluster == owner_cluster]

    async def look_ahead(
        self, owner_cluster: str, *, after: str | None, limit: int
    ) -> tuple[list[ListedToken], str | None]:
        rows = await self.list_tokens(owner_cluster)
        start = int(after or 0)
        self.pages.append(limit)
        is_last = start + limit >= len(rows)
        return rows[start : start + limit], None if is_last else str(start + limit)

    async def delete_token(self, token_id: str) -> None:
        self.tokens = [row for row in self.tokens if row.id != token_id]

    async def list_policies(self, owner_cluster: str) -> list[tuple[str, Owner]]:
        return [row for row in self.policies if row[1].cluster == owner_cluster]

    async def delete_policy(self, policy_id: str) -> None:
        self.policies = [row for row in self.policies if row[0] != policy_id]

    def holds(self, name: str, *, label: str = "", uid: str = "", **fields: Any) -> None:
        values = {"cluster": OURS, "namespace": "default", "name": name, "uid": uid or name}
        owner = Owner(**(values | fields))
        self.tokens.append(ListedToken(id=owner.uid, label=label, owner=owner, usage=Usage()))


class Rig:
    """An upkeep between an API in memory and a server of lists."""

    def __init__(self, kube: Kube, namespaces: tuple[str, ...] = ()) -> None:
        self.clock = SystemClock()
        self.server, self.cache, self.breaker = OwnedServer(), Cache(), Breaker(self.clock)
        self.queue = WorkQueue(self.clock, lambda: 0.5)
        self.registry = CollectorRegistry()
        instruments = Instruments.make(self.registry)
        self.controller = Controller(
            cache=self.cache,
            queue=self.queue,
            breaker=self.breaker,
            tokens=self,  # type: ignore[arg-type]  # no round is run here
            policies=self,  # type: ignore[arg-type]  # likewise
            instruments=instruments,
            clock=self.clock,
            random=lambda: 0.5,
            facts=lambda: FACTS,
        )
        self.upkeep = Upkeep(
            kube=kube,
            server=self.server,
            cache=self.cache,
            queue=self.queue,
            controller=self.controller,
            breaker=self.breaker,
            instruments=instruments,
            clock=self.clock,
            owner_cluster=OURS,
            namespaces=namespaces,
            make_facts=lambda facts: ConnectionFacts(agent_url=f"https://{facts.domains[0]}"),
        )

    def orphans(self, kind: str) -> float | None:
        return self.registry.get_sample_value("moleport_operator_orphans", {"kind": kind})

    async def taken(self) -> set[Key]:
        return {await self.queue.take() for _ in range(self.queue.depth)}


@asynccontextmanager
async def rig_of(api: KubeApi, namespaces: tuple[str, ...] = ()) -> AsyncIterator[Rig]:
    async with api, open_client(api) as kube:
        yield Rig(kube, namespaces)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    """Run a loop beside a test."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield
        task.cancel()


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def test_only_what_is_ours_and_gone_twice_is_swept() -> None:
    api = KubeApi()
    alive = api.create(TOKENS, {"metadata": {"name": "alive"}})["metadata"]["uid"]
    api.create(TOKENS, {"metadata": {"name": "made-anew"}})
    async with rig_of(api) as rig:
        await rig.upkeep.load()
        rig.server.holds("alive", uid=alive)
        rig.server.holds("made-anew", uid="of-the-one-before")
        rig.server.holds("lost")
        rig.server.holds("kept", label=f"{RETAINED}default/kept")
        rig.server.holds("foreign", cluster="cluster-2")

        await rig.upkeep.sweep()
        first, suspected = {row.id for row in rig.server.tokens}, rig.orphans("token")
        await rig.upkeep.sweep()

    assert first == {alive, "of-the-one-before", "lost", "kept", "foreign"}
    assert suspected == 2
    assert {row.id for row in rig.server.tokens} == {alive, "kept", "foreign"}
    assert rig.orphans("token") == 0


async def test_orphan_policies_are_swept_by_the_kind_of_their_owner() -> None:
    api = KubeApi()
    spec = {"targetRefs": [{"kind": "TunnelToken"}]}
    api.create(POLICIES, {"metadata": {"name": "strict"}, "spec": spec})
    api.create(CLUSTER_POLICIES, {"metadata": {"name": "wide"}, "spec": spec})
    async with rig_of(api) as rig:
        for name, namespace in (("strict", "default"), ("wide", ""), ("lost", ""), ("gone", "b")):
            kind = CLUSTER_POLICIES if not namespace else POLICIES
            uid = (api.get(kind, name) or {"metadata": {"uid": name}})["metadata"]["uid"]
            owner = Owner(cluster=OURS, namespace=namespace, name=name, uid=uid)
            rig.server.policies.append((uid, owner))

        for _ in range(2):
            await rig.upkeep.sweep()

    assert {owner.name for _, owner in rig.server.policies} == {"strict", "wide"}


async def test_what_lies_outside_of_our_namespaces_is_no_orphan() -> None:
    async with rig_of(KubeApi(), ("mine",)) as rig:
        rig.server.holds("elsewhere", namespace="theirs")
        rig.server.holds("here", namespace="mine")

        for _ in range(2):
            await rig.upkeep.sweep()

    assert [row.id for row in rig.server.tokens] == ["elsewhere"]


async def test_a_list_brings_what_the_watch_forgot_and_drops_what_is_gone() -> None:
    api = KubeApi()
    api.create(TOKENS, {"metadata": {"name": "shop"}})
    api.create(NAMESPACES, {"metadata": {"name": "b", "labels": {"tier": "dev"}}})
    async with rig_of(api) as rig:
        rig.cache.put(OUR_TOKENS, body("gone", resourceVersion="0"))
        rig.cache.put(OUR_POLICIES, body("gone-too", resourceVersion="0", spec={"targetRefs": []}))

        await rig.upkeep.load()

    assert rig.cache.keys(OUR_TOKENS) == [SHOP]
    assert rig.cache.keys(OUR_POLICIES) == []


async def test_a_resync_gives_everything_a_round_evenly() -> None:
    async with rig_of(KubeApi()) as rig:
        for number in range(10):
            rig.cache.put(OUR_TOKENS, body(f"t-{number}"))
        loop = asyncio.get_running_loop()
        async with running(rig.upkeep.resync(0.5)):
            began = loop.time()
            await until(lambda: rig.queue.depth >= 5)
            took = loop.time() - began
            await until(lambda: rig.queue.depth == 10)

    assert took >= 0.15  # half of them after half of the period, not at once
    assert len(await rig.taken()) == 10


async def test_a_resync_lists_the_tokens_of_a_group_just_before_their_rounds() -> None:
    async with rig_of(KubeApi()) as rig:
        for number in range(200):
            rig.cache.put(OUR_TOKENS, body(f"t-{number}"))
            if number % 2:
                rig.server.holds(f"t-{number}")
        async with running(rig.upkeep.resync(0.5)):
            await until(lambda: rig.queue.depth == 200)

    assert max(rig.server.pages) <= 11
    assert len(rig.server.pages) <= 11  # 100 rows in groups of ten
    assert sum(rig.server.pages) >= 100


async def test_usage_that_status_does_not_tell_gives_a_round() -> None:
    async with rig_of(KubeApi()) as rig:
        told = {"usage": {"activeTunnels": 1, "activeAgents": 1}}
        for name, status in (("shop", {}), ("told", told)):
            rig.cache.put(OUR_TOKENS, body(name, status=status))
            owner = Owner(cluster=OURS, namespace="default", name=name, uid=name)
            row = ListedToken(id=name, label="", owner=owner, usage=Usage(tunnels=1, agents=1))
            rig.server.tokens.append(row)
        rig.server.holds("nobody-knows-it")
        async with running(rig.upkeep.refresh_usage(0.01)):
            await until(lambda: rig.queue.depth)

    assert await rig.taken() == {SHOP}


async def test_facts_are_learned_and_a_change_of_them_told_to_everybody() -> None:
    async with rig_of(KubeApi()) as rig:
        rig.cache.put(OUR_TOKENS, body("shop"))
        rig.server.is_down = True
        assert not await rig.upkeep.learn_facts()
        assert rig.upkeep.facts is None
        rig.server.is_down = False

        assert await rig.upkeep.learn_facts()

    assert rig.upkeep.facts == ConnectionFacts(agent_url="https://tunnels.test")
    assert await rig.taken() == {SHOP}


async def test_a_server_that_is_down_for_long_is_told_to_every_token_and_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TELL_OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr(module, "OUTAGE_SPREAD_SECONDS", 0.0)
    async with rig_of(KubeApi()) as rig:
        monkeypatch.setattr(rig.breaker, "next_pause", lambda: 0.01)
        rig.cache.put(OUR_TOKENS, body("shop"))
        rig.server.is_down = True
        async with running(rig.upkeep.probe()):
            for _ in range(FAILURES_TO_OPEN):
                rig.breaker.failed("away")
            await until(lambda: rig.server.probes >= 3)
            rig.breaker.succeeded()

    assert await rig.taken() == {SHOP}
