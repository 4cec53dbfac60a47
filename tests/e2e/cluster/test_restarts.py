"""What visitors see while a piece of the installation is replaced."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from helpers.kubernetes_cluster import Cluster
from helpers.release import (
    DOMAIN,
    HTTP_PORT,
    NODE_PORTS,
    TCP_PORT,
    Release,
    status_of,
    until_served,
)
from helpers.visits import Attempt, Gap, Load, Visitor
from helpers.workloads import start_agent, start_origin

HOST = f"shop.{DOMAIN}"
QUIET = f"quiet.{DOMAIN}"
"""Without load: what was captured there is not pushed out by what comes after it."""
PATH = "/size/20000"
BODY = (bytes(range(256)) * 100)[:20_000]
GAP_LIMIT_SECONDS = 15.0
"""One pod: its volume, its certificate and its databases move to another one."""
ACCESS = {
    "protocols": ["http", "tcp"],
    "http": {"hostnames": ["shop", "quiet"]},
    "tcp": {"ports": [{"start": TCP_PORT, "end": TCP_PORT}]},
}
TUNNELS = {
    "shop": {"protocol": "http", "target": "origin:8000", "name": "shop"},
    "quiet": {"protocol": "http", "target": "origin:8000", "name": "quiet"},
    "echo": {"protocol": "tcp", "target": "origin:9000", "port": TCP_PORT},
}


@dataclass
class Before:
    """What has to be there again."""

    tokens: set[str]
    tunnels: set[str]
    instance: str
    captures: set[str]


@pytest.fixture
async def shop(cluster: Cluster, release: Release, namespace: str) -> str:
    """An agent in the cluster with a name and a port; gives its namespace."""
    release.ensure(NODE_PORTS)
    release.ready_token(namespace, "shop", access=ACCESS)
    start_origin(cluster, namespace)
    start_agent(cluster, namespace, "shop", tunnels=TUNNELS)
    await until_served(HOST)
    await until_served(QUIET)
    return namespace


async def state(release: Release) -> Before:
    tokens = await release.rest("GET", "/api/tokens")
    tunnels = await release.rest("GET", "/api/tunnels")
    captures: set[str] = set()
    for tunnel in tunnels:
        if tunnel["label"] != QUIET:
            continue
        rows = await release.rest("GET", f"/api/tunnels/{tunnel['tunnel_id']}/requests?limit=500")
        captures |= {row["id"] for row in rows}
    return Before(
        {token["id"] for token in tokens},
        {tunnel["label"] for tunnel in tunnels},
        (await release.rest("GET", "/api/server"))["instance_id"],
        captures,
    )


async def server_is_replaced(
    cluster: Cluster, release: Release, how: Callable[[], Any], say: Callable[[str], None]
) -> None:
    """Replace the server's pod under load; hold everything that has to hold."""
    assert await status_of(QUIET) == 200
    await asyncio.sleep(2)  # captures are written behind the requests
    before = await state(release)
    assert before.captures
    old = release.server_pod().metadata.uid

    load = Load(HTTP_PORT, HOST, PATH, connections=8, per_second=50, body=BODY)
    async with load.running(), Gap(HTTP_PORT, HOST).watched() as gap:
        await load.wait_successes(100)
        await asyncio.to_thread(how)
        ready = await until_ready_again(cluster, release, old)
        await load.wait_successes(100)
        await until_answers(load, since=ready, count=100)

    failed = load.failures()
    say(
        f"gap for visitors {gap.seconds:.1f} s; of {len(load.attempts)} requests {len(failed)} failed: "
        f"{sorted({attempt.problem[:60] for attempt in failed})}"
    )
    assert [attempt for attempt in failed if attempt.status != 0] == [], "a wrong answer"
    assert load.failures(since=ready) == []
    assert gap.seconds < GAP_LIMIT_SECONDS
    after = await state(release)
    assert after.tokens == before.tokens
    assert after.tunnels == before.tunnels
    assert after.instance == before.instance
    assert after.captures >= before.captures
    async with await Visitor.connect(TCP_PORT) as visitor:
        visitor.send(b"the same port")
        async with asyncio.timeout(30):
            assert await visitor.reader.readexactly(13) == b"the same port"


async def until_ready_again(cluster: Cluster, release: Release, old: str) -> datetime:
    """Wait for another pod that is ready; returns when that was seen."""

    def is_ready() -> bool:
        pods = cluster.pods(release.namespace, "app.kubernetes.io/component=server")
        return any(
            pod.metadata.uid != old
            and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
            for pod in pods
        )

    await cluster.until_async(is_ready, "another server pod is ready", 120)
    return datetime.now(UTC)


async def until_answers(load: Load, *, since: datetime, count: int) -> None:
    def answered() -> list[Attempt]:
        return [a for a in load.attempts if a.began >= since and a.status == 200]

    async with asyncio.timeout(60):
        while len(answered()) < count:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def nothing_fails() -> AsyncIterator[Load]:
    """Visit all the time, and hold that each visit is answered."""
    load = Load(HTTP_PORT, HOST, PATH, connections=8, per_second=50, body=BODY)
    async with load.running():
        await load.wait_successes(50)
        yield load
        await load.wait_successes(200, seconds=60)
    assert load.failures() == []


async def test_a_killed_server_pod_comes_back_with_everything_and_costs_seconds(
    cluster: Cluster, release: Release, shop: str, record_property: Any
) -> None:
    pod = release.server_pod()

    await server_is_replaced(
        cluster, release, lambda: cluster.kill_pod(pod), saying(record_property)
    )


async def test_a_helm_upgrade_with_a_changed_value_costs_seconds_and_loses_nothing(
    cluster: Cluster, release: Release, shop: str, record_property: Any
) -> None:
    changed = {"server": {"settings": {"limits": {"edge_connections": 19_999}}}}

    await server_is_replaced(
        cluster, release, lambda: release.install(NODE_PORTS, changed), saying(record_property)
    )


async def test_an_agent_that_crashes_fails_no_request(cluster: Cluster, shop: str) -> None:
    [pod] = cluster.pods(shop, "app=agent")

    async with nothing_fails():
        await asyncio.to_thread(cluster.crash, pod)
        await cluster.until_async(lambda: restarts(cluster, shop) == 1, "the agent is back")


def restarts(cluster: Cluster, namespace: str) -> int:
    [pod] = cluster.pods(namespace, "app=agent")
    status = pod.status.container_statuses[0]
    return int(status.restart_count) if status.ready else 0


async def test_a_killed_operator_pod_fails_nothing_and_finishes_what_it_began(
    cluster: Cluster, release: Release, shop: str
) -> None:
    pod = release.operator_pod()

    async with nothing_fails():
        for number in range(10):
            release.token(shop, f"new-{number}")
        await asyncio.to_thread(cluster.kill_pod, pod)
        for number in range(10):
            await asyncio.to_thread(
                cluster.kubectl,
                *(
                    "-n",
                    shop,
                    "wait",
                    "--for=condition=Ready",
                    f"ttok/new-{number}",
                    "--timeout=90s",
                ),
            )


def saying(record_property: Any) -> Callable[[str], None]:
    """Print a figure, and keep it in the report."""

    def say(text: str) -> None:
        record_property("measured", text)
        print(text)

    return say
