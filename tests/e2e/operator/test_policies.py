"""Policies through real processes: what they bound is bounded at the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

BCRYPT = "$2y$05$" + "a" * 53


async def effective(cluster: Any, name: str) -> dict[str, Any]:
    uid = cluster.get("ttok", name)["metadata"]["uid"]
    _, token = await cluster.rest("GET", f"/api/tokens/{uid}")
    found: dict[str, Any] = token["effective"]
    return found


async def test_a_policy_bounds_the_tokens_that_it_selects(cluster: Any) -> None:
    await cluster.start_operator()
    spec = {"access": {"protocols": ["http", "tcp"]}}
    cluster.apply("TunnelToken", "bounded", metadata={"labels": {"team": "a"}}, spec=spec)
    cluster.apply("TunnelToken", "free", spec=spec)
    for name in ("bounded", "free"):
        await cluster.ready(name)

    targets = [{"kind": "TunnelToken", "selector": {"matchLabels": {"team": "a"}}}]
    cluster.apply(
        "TunnelPolicy",
        "http-only",
        spec={"targetRefs": targets, "access": {"protocols": ["http"]}},
    )

    await cluster.until(
        lambda: cluster.condition("bounded", "PolicyApplied") == ("True", "Restricted"),
        "restricted",
    )
    await cluster.until(
        lambda: (cluster.get("tpol", "http-only") or {})["status"].get("attachedTokens") == 1,
        "one token",
    )
    assert (await effective(cluster, "bounded"))["access"]["protocols"] == ["http"]
    assert set((await effective(cluster, "free"))["access"]["protocols"]) == {"http", "tcp"}
    status = cluster.get("ttok", "bounded")["status"]
    assert [(p["kind"], p["name"]) for p in status["policies"]] == [("TunnelPolicy", "http-only")]
    assert cluster.condition("http-only", "Accepted", "tpol") == ("True", "Accepted")


async def test_a_policy_that_goes_frees_its_tokens(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    bound = {"targetRefs": [{"kind": "TunnelToken"}], "limits": {"maxTunnelsPerToken": 1}}
    cluster.apply("TunnelPolicy", "few", spec=bound)
    await cluster.until(
        lambda: cluster.condition("shop", "PolicyApplied") == ("True", "Applied"), "applied"
    )
    assert (await effective(cluster, "shop"))["limits"]["max_tunnels"] == 1

    cluster.kubectl("delete", "tpol", "few", "--timeout=20s")

    assert (await effective(cluster, "shop"))["limits"]["max_tunnels"] is None
    await cluster.until(
        lambda: cluster.condition("shop", "PolicyApplied") == ("True", "NoPolicy"), "free"
    )


async def test_a_policy_of_the_cluster_bounds_namespaces_by_their_labels(cluster: Any) -> None:
    await cluster.start_operator()
    label = f"test={cluster.namespace}"
    targets = [{"kind": "Namespace", "selector": {"matchLabels": {"test": cluster.namespace}}}]
    name = f"bound-{cluster.namespace}"
    cluster.apply(
        "ClusterTunnelPolicy", name, spec={"targetRefs": targets, "tokens": {"maxLifetime": "24h"}}
    )
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    assert "expirationTime" not in cluster.get("ttok", "shop")["status"]

    cluster.kubectl("label", "namespace", cluster.namespace, label)

    await cluster.until(lambda: "expirationTime" in cluster.get("ttok", "shop")["status"], "an end")


async def test_the_oldest_tokens_stay_within_a_quota(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "a")
    await cluster.ready("a")
    bound = {"targetRefs": [{"kind": "TunnelToken"}], "tokens": {"maxTokens": 1}}
    cluster.apply("TunnelPolicy", "one", spec=bound)
    await cluster.until(
        lambda: cluster.condition("one", "Accepted", "tpol")[1] == "Accepted", "accepted"
    )
    cluster.apply("TunnelToken", "b")
    await cluster.until(
        lambda: cluster.condition("b", "Stalled") == ("True", "DeniedByPolicy"), "denied"
    )
    assert cluster.get("secret", "b") is None

    cluster.kubectl("delete", "ttok", "a", "--timeout=20s")

    await cluster.ready("b")


async def test_passwords_reach_the_server_and_a_missing_secret_closes_http(cluster: Any) -> None:
    await cluster.start_operator(resync=2)
    cluster.apply("TunnelToken", "shop")
    http = {"auth": {"basic": {"secretRef": {"name": "visitors"}}}}
    cluster.apply(
        "TunnelPolicy", "login", spec={"targetRefs": [{"kind": "TunnelToken"}], "http": http}
    )
    await cluster.until(
        lambda: cluster.condition("login", "Accepted", "tpol")[1] == "SecretNotFound", "not found"
    )
    await cluster.until(
        lambda: cluster.condition("shop", "PolicyApplied")[1] in {"Applied", "Restricted"},
        "applied",
    )
    assert (await effective(cluster, "shop"))["http"]["denied"]

    lines = f"--from-literal=auth=ann:{BCRYPT}"
    cluster.kubectl("create", "secret", "generic", "visitors", lines)

    await cluster.until(
        lambda: cluster.condition("login", "Accepted", "tpol")[1] == "Accepted", "accepted"
    )
    async with asyncio.timeout(10):
        while (await effective(cluster, "shop"))["http"]["users"] != ["ann"]:
            await asyncio.sleep(0.1)
