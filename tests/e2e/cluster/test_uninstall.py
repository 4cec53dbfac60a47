"""What an uninstall leaves, and what an install finds again."""

import asyncio

from helpers.kubernetes_cluster import Cluster
from helpers.release import DOMAIN, NODE_PORTS, Release, until_served
from helpers.workloads import start_agent, start_origin

SHOP = {"http": {"hostnames": ["shop"]}}
CRDS = {
    f"CustomResourceDefinition {name}.moleport.dev"
    for name in ("clustertunnelpolicies", "tunnelpolicies", "tunneltokens")
}


IGNORED = {"events", "events.events.k8s.io", "endpoints", "leases.coordination.k8s.io"}
OF_EVERY_NAMESPACE = {"ServiceAccount default", "ConfigMap kube-root-ca.crt"}


def kinds(cluster: Cluster, *, namespaced: bool) -> str:
    listed = cluster.kubectl(
        *("api-resources", "--verbs=list", f"--namespaced={str(namespaced).lower()}", "-o", "name"),
        with_complaints=False,
    )
    return ",".join(sorted(set(listed.split()) - IGNORED))


def everything_of(cluster: Cluster, release: Release) -> set[str]:
    """Return what is in the namespace of the install, and what has its label elsewhere."""
    label = ("-l", "app.kubernetes.io/instance=moleport")
    found = [
        *cluster.list_of(kinds(cluster, namespaced=True), "-n", release.namespace),
        *cluster.list_of(kinds(cluster, namespaced=True), "-A", *label),
        *cluster.list_of(kinds(cluster, namespaced=False), *label),
    ]
    return {f"{item['kind']} {item['metadata']['name']}" for item in found} - OF_EVERY_NAMESPACE


async def only_left(cluster: Cluster, release: Release, expected: set[str]) -> None:
    """Hold that nothing else is left, as soon as what was deleted is gone."""
    left: set[str] = set()

    def is_so() -> bool:
        nonlocal left
        left = everything_of(cluster, release)
        return left <= expected

    try:
        await cluster.until_async(is_so, "everything is gone", 90)
    except AssertionError:
        raise AssertionError(f"left behind: {left - expected}") from None
    assert left == expected


async def test_an_uninstall_with_tokens_leaves_what_the_values_say_and_an_install_adopts_it(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS)
    secret = release.ready_token(namespace, "shop", access=SHOP)
    start_origin(cluster, namespace)
    start_agent(cluster, namespace, "shop")
    instance = (await release.rest("GET", "/api/server"))["instance_id"]

    await asyncio.to_thread(release.uninstall)

    await only_left(cluster, release, CRDS | {"PersistentVolumeClaim data-moleport-server-0"})
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

    assert cluster.list_of("ttok,tpol,ctpol", "-A") == []
    await cluster.until_async(lambda: not cluster.secret(namespace, "shop"), "the Secret is gone")
    await only_left(cluster, release, CRDS)
