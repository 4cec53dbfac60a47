"""What an uninstall leaves, and what an install finds again."""

import asyncio
import json

from helpers.kubernetes_cluster import Cluster
from helpers.release import DOMAIN, NODE_PORTS, Release, until_served
from helpers.workloads import start_agent, start_origin

SHOP = {"http": {"hostnames": ["shop"]}}
CRDS = ["clustertunnelpolicies", "tunnelpolicies", "tunneltokens"]


def everything_of(cluster: Cluster, release: Release) -> set[str]:
    """Return all objects of the cluster that carry the labels of the install, and all in its namespace."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    ignored = {"events", "events.events.k8s.io", "endpoints", "leases.coordination.k8s.io"}
    asked = ",".join(sorted(set(kinds) - ignored))
    label = "app.kubernetes.io/instance=moleport"
    found = json.loads(cluster.kubectl("get", asked, "-A", "-l", label, "-o", "json"))["items"]
    inside = ("-n", release.namespace)
    found += json.loads(cluster.kubectl(*inside, "get", asked, "-o", "json"))["items"]
    own = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
    return {
        f"{item['kind']} {item['metadata']['name']}"
        for item in found
        if (item["kind"], item["metadata"]["name"]) not in own
        and item["metadata"].get("namespace", release.namespace) == release.namespace
        and item["kind"]
        not in {"Namespace", "Node", "PersistentVolume", "StorageClass", "APIService"}
        and "moleport" in json.dumps(item["metadata"])
    }


def expected_left(*more: str) -> set[str]:
    crds = {f"CustomResourceDefinition {name}.moleport.dev" for name in CRDS}
    return crds | {"PersistentVolumeClaim data-moleport-server-0"} | set(more)


async def test_an_uninstall_with_tokens_leaves_what_the_values_say_and_an_install_adopts_it(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    secret = release.ready_token(namespace, "shop", access=SHOP)
    start_origin(cluster, namespace)
    start_agent(cluster, namespace, "shop")
    instance = (await release.rest("GET", "/api/server"))["instance_id"]

    await asyncio.to_thread(release.uninstall)

    left = await cluster.until_async(
        lambda: (found := everything_of(cluster, release)) == expected_left() and found,
        f"nothing but the kept: {everything_of(cluster, release)}",
        90,
    )
    assert left == expected_left()
    assert "shop" in cluster.kubectl("-n", namespace, "get", "ttok", "-o", "name")

    await asyncio.to_thread(release.install, NODE_PORTS)

    cluster.kubectl(
        *("-n", namespace, "wait", "--for=condition=Ready", "ttok/shop", "--timeout=60s")
    )
    assert (await release.rest("GET", "/api/server"))["instance_id"] == instance
    now = cluster.secret(namespace, "shop")
    assert (now["token"], now["token-id"]) == (secret["token"], secret["token-id"])
    # The authority is a new one, since the Secrets of the install are gone: agents get it by their Secret,
    # when the kubelet shows it.
    await until_served(f"shop.{DOMAIN}", 180)


async def test_an_uninstall_that_deletes_revokes_every_token_and_leaves_nothing_stuck(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.install(
        NODE_PORTS, {"uninstall": {"objects": "Delete"}, "persistence": {"keep": False}}
    )
    release.ready_token(namespace, "shop", access=SHOP)

    await asyncio.to_thread(release.uninstall)

    left = cluster.kubectl("get", "ttok,tpol,ctpol", "-A", "-o", "name").split()
    assert left == []
    assert not cluster.secret(namespace, "shop")
    await cluster.until_async(
        lambda: (
            everything_of(cluster, release)
            == {f"CustomResourceDefinition {name}.moleport.dev" for name in CRDS}
        ),
        "nothing but definitions",
        90,
    )
