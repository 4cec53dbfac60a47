"""An install that works in one namespace and has no right on the cluster."""

import pytest

from helpers.kubernetes_cluster import Cluster
from helpers.release import NODE_PORTS, Release

ELSEWHERE = "default"
MAY = (
    ("list,watch,patch", "tunneltokens.moleport.dev"),
    ("list,watch,patch", "tunnelpolicies.moleport.dev"),
    ("patch", "tunneltokens.moleport.dev/status"),
    ("patch", "tunnelpolicies.moleport.dev/status"),
    ("update", "tunneltokens.moleport.dev/finalizers"),
    ("get,create,patch", "secrets"),
    ("create,patch", "events.events.k8s.io"),
)
MAY_NOT = (
    ("list,watch,delete", "secrets"),
    ("create,delete,deletecollection", "tunneltokens.moleport.dev"),
    ("get,list,create", "pods"),
    ("create", "pods/exec"),
    ("get,list", "configmaps"),
)
MAY_NOWHERE = (
    ("list,watch,patch", "tunneltokens.moleport.dev"),
    ("get,list,create,patch", "secrets"),
    ("create", "events.events.k8s.io"),
)
NOT_ON_THE_CLUSTER = (
    ("list,watch,patch", "clustertunnelpolicies.moleport.dev"),
    ("get,list,watch", "namespaces"),
    ("get,list", "nodes"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
)


def answers(cluster: Cluster, verbs: str, resource: str, *where: str) -> set[str]:
    """Ask `kubectl auth can-i` for each verb."""
    name, _, part = resource.partition("/")
    of = (*where, f"--subresource={part}") if part else where
    return {
        cluster.kubectl(
            *("auth", "can-i", verb, name, *of), code=None, with_complaints=False
        ).strip()
        for verb in verbs.split(",")
    }


async def test_a_namespaced_install_works_in_its_namespace_and_has_no_right_elsewhere(
    cluster: Cluster,
    release: Release,
    namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    release.ensure(NODE_PORTS)  # has the definitions, which only an administrator may install
    own = Release(cluster, tmp_path_factory.mktemp("own"), namespace)
    own.install(
        {
            "crds": {"enabled": False},
            "rbac": {"scope": "namespaced", "aggregate": False},
            "domain": "own.localhost",
        }
    )
    operator = f"--as=system:serviceaccount:{namespace}:moleport-operator"

    own.ready_token(namespace, "shop")

    try:
        for table, expected, where in (
            (MAY, {"yes"}, ("-n", namespace)),
            (MAY_NOT, {"no"}, ("-n", namespace)),
            (MAY_NOWHERE, {"no"}, ("-n", ELSEWHERE)),
            (NOT_ON_THE_CLUSTER, {"no"}, ("--all-namespaces",)),
        ):
            for verbs, resource in table:
                found = answers(cluster, verbs, resource, operator, *where)
                assert found == expected, (verbs, resource, where)
        assert namespace not in cluster.kubectl("get", "clusterrolebindings", "-o", "json")
    finally:
        own.uninstall()
