"""Two nodes, and one of them is emptied."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helpers.kubernetes_cluster import Cluster
from helpers.release import DOMAIN, HTTP_PORT, NODE_PORTS, Release, until_served
from helpers.visits import Gap, Load
from helpers.workloads import start_agent, start_origin

HOST = f"shop.{DOMAIN}"
PUBLISHED = "moleport.test/published"
ADOPTED_SECONDS = 30.0
GAP_LIMIT_SECONDS = 15.0


def nodes(cluster: Cluster) -> tuple[str, str]:
    """Return the node with the published ports, and the other one."""
    listed = cluster.core.list_node().items
    [published] = [node for node in listed if PUBLISHED in node.metadata.labels]
    [other] = [node for node in listed if PUBLISHED not in node.metadata.labels]
    return published.metadata.name, other.metadata.name


def on(node: str) -> dict[str, dict[str, str]]:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def prefer(node: str) -> dict[str, object]:
    """Choose a node while it takes pods, and any other one after."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    term = {"weight": 100, "preference": {"matchExpressions": [expression]}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}


@asynccontextmanager
async def drained(cluster: Cluster, node: str) -> AsyncIterator[None]:
    """Empty a node as an administrator does, and give it back."""
    try:
        await asyncio.to_thread(
            cluster.kubectl,
            *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"),
            seconds=130,
        )
        yield
    finally:
        cluster.kubectl("uncordon", node)


async def test_draining_the_node_of_operator_and_agent_costs_what_the_agent_needs_to_start(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    published, other = nodes(cluster)
    release.ensure(NODE_PORTS, {"operator": {"affinity": prefer(other)}})
    release.ready_token(namespace, "shop", access={"http": {"hostnames": ["shop"]}})
    start_origin(cluster, namespace, **on(published))
    start_agent(cluster, namespace, "shop", affinity=prefer(other))
    assert release.operator_pod().spec.node_name == other
    [agent] = cluster.pods(namespace, "app=agent")
    assert agent.spec.node_name == other
    await until_served(HOST)

    load = Load(HTTP_PORT, HOST, connections=8, per_second=50)
    async with load.running(), Gap(HTTP_PORT, HOST).watched() as gap:
        await load.wait_successes(50)
        async with drained(cluster, other):
            cluster.rolled_out("deployment/agent", namespace)
            cluster.rolled_out("deployment/moleport-operator", release.namespace)
            await load.wait_successes(100)

    # An agent that is told to end says goodbye: visitors are told when to come again, instead of being held.
    failed = load.failures()
    print(f"gap for visitors {gap.seconds:.1f} s; {len(failed)} of {len(load.attempts)} got a 503")
    assert {(attempt.status, attempt.problem) for attempt in failed} <= {(503, "agent-away")}
    assert gap.seconds < GAP_LIMIT_SECONDS
    assert release.operator_pod().spec.node_name == published
    release.ready_token(namespace, "after")


async def test_without_a_volume_draining_the_servers_node_gives_all_tokens_back_in_half_a_minute(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    published, other = nodes(cluster)
    anywhere = {
        "persistence": {"enabled": False},
        "server": {"nodeSelector": None, "affinity": prefer(other)},
        "service": {
            name: {"externalTrafficPolicy": "Cluster"} for name in ("edge", "control", "api", "tcp")
        },
        "operator": {"affinity": prefer(published)},
    }
    release.ensure(NODE_PORTS, anywhere)
    secrets = {
        name: release.ready_token(namespace, name, access={"http": {"hostnames": [name]}})
        for name in ("shop", "till", "desk")
    }
    start_origin(cluster, namespace, **on(published))
    start_agent(cluster, namespace, "shop", affinity=prefer(published))
    assert release.server_pod().spec.node_name == other
    instance = (await release.rest("GET", "/api/server"))["instance_id"]

    async with drained(cluster, other):
        cluster.rolled_out("statefulset/moleport-server", release.namespace)
        ready = time.monotonic()
        async with asyncio.timeout(ADOPTED_SECONDS):
            while not await has_all(release, {secret["token-id"] for secret in secrets.values()}):
                await asyncio.sleep(0.5)
        print(f"all tokens were back {time.monotonic() - ready:.1f} s after readiness")
        assert release.server_pod().spec.node_name == published
        assert (await release.rest("GET", "/api/server"))["instance_id"] != instance
        for name, secret in secrets.items():
            assert cluster.secret(namespace, name)["token"] == secret["token"]
        await until_served(HOST)


async def has_all(release: Release, wanted: set[str]) -> bool:
    return wanted <= {token["id"] for token in await release.rest("GET", "/api/tokens")}
