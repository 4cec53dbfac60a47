"""Ways to run and to leave: one namespace only, and draining before an uninstall."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from helpers.processes import Running, command

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def drain(cluster: Any, *flags: str, verb: str = "drain") -> Running:
    environ = {**cluster.site.environ, "KUBECONFIG": str(cluster.api.kubeconfig)}
    arguments = [command("moleport-operator"), verb, "--namespace", cluster.namespace, *flags]
    running = await Running.start(verb, arguments, environ)
    cluster.site.running.append(running)
    return running


async def test_one_namespace_is_watched_alone_and_readiness_says_what_is_missing(
    cluster: Any,
) -> None:
    other = f"{cluster.namespace}-other"
    cluster.kubectl("create", "namespace", other)
    await cluster.start_operator(f"--namespace={cluster.namespace}")
    cluster.apply("TunnelToken", "elsewhere", metadata={"namespace": other})
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")

    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{cluster.health_port}/readyz"
        async with session.get(url) as answer:
            said = await answer.text()

    assert answer.status == 200
    assert "ClusterTunnelPolicies are not watched" in said
    left = cluster.api.kubectl("-n", other, "get", "ttok", "elsewhere", "-o", "jsonpath={.status}")
    assert left == ""
    cluster.api.kubectl("-n", other, "delete", "ttok", "elsewhere")


async def test_drain_revokes_everything_while_the_operator_runs(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    bound = {"targetRefs": [{"kind": "TunnelToken"}], "tokens": {"maxTokens": 5}}
    cluster.apply("TunnelPolicy", "five", spec=bound)
    await cluster.ready("shop")
    uid = cluster.get("ttok", "shop")["metadata"]["uid"]

    running = await drain(cluster)

    assert await running.wait_exit(seconds=30) == 0
    await running.aclose()
    assert cluster.get("ttok", "shop") is None
    assert cluster.get("tpol", "five") is None
    assert (await cluster.rest("GET", f"/api/tokens/{uid}"))[0] == 404


async def test_drain_without_an_operator_lets_go_only_by_force(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    await cluster.operator.aclose()

    patient = await drain(cluster, "--timeout=1")
    assert await patient.wait_exit(seconds=30) == 1
    assert "--force" in patient.output
    await patient.aclose()
    forced = await drain(cluster, "--timeout=1", "--force")

    assert await forced.wait_exit(seconds=30) == 0
    await forced.aclose()
    assert cluster.get("ttok", "shop") is None


async def test_let_go_keeps_resources_that_anybody_can_delete_and_a_later_operator_adopts(
    cluster: Any,
) -> None:
    await cluster.start_operator()
    for name in ("shop", "kiosk"):
        cluster.apply("TunnelToken", name)
        await cluster.ready(name)
    credential = cluster.get("secret", "shop")["data"]["token"]
    await cluster.operator.aclose()

    running = await drain(cluster, verb="let-go")
    assert await running.wait_exit(seconds=30) == 0
    await running.aclose()

    assert "finalizers" not in cluster.get("ttok", "shop")["metadata"]
    cluster.kubectl("delete", "ttok", "kiosk", "--timeout=10s")
    await cluster.start_operator()
    await cluster.until(
        lambda: cluster.get("ttok", "shop")["metadata"].get("finalizers"), "adopted again"
    )
    await cluster.ready("shop")
    assert cluster.get("secret", "shop")["data"]["token"] == credential
