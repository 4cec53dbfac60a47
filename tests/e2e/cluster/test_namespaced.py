"""An install without any right on the cluster, by somebody who has none either."""

import pytest

from helpers.kubernetes_cluster import Cluster
from helpers.release import NODE_PORTS, Release

WATCHED = "t-namespaced"
ELSEWHERE = "default"
OPERATOR = f"system:serviceaccount:{WATCHED}:moleport-operator"
MAY = (
    ("get,list,watch,patch", "tunneltokens.moleport.dev"),
    ("get,list,watch,patch", "tunnelpolicies.moleport.dev"),
    ("patch", "tunneltokens.moleport.dev/status"),
    ("get,create,patch", "secrets"),
    ("create,patch", "events.events.k8s.io"),
)
MAY_NOT = (
    ("list,watch,delete", "secrets"),
    ("delete", "tunneltokens.moleport.dev"),
    ("get,list", "pods"),
    ("create", "pods/exec"),
    ("get,list", "configmaps"),
)
MAY_NOWHERE = (
    ("get,list,watch,patch", "tunneltokens.moleport.dev"),
    ("get,list,create,patch", "secrets"),
    ("create", "events.events.k8s.io"),
)
NOT_ON_THE_CLUSTER = (
    ("get,list,watch,patch", "clustertunnelpolicies.moleport.dev"),
    ("get,list,watch", "namespaces"),
    ("get,list", "nodes"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
)


def answers(cluster: Cluster, verbs: str, resource: str, *where: str) -> set[str]:
    """Ask `kubectl auth can-i` for each verb."""
    return {
        cluster.kubectl(
            *("auth", "can-i", verb, resource, f"--as={OPERATOR}", *where), code=None
        ).split()[-1]
        for verb in verbs.split(",")
    }


async def test_a_namespaced_install_works_in_its_namespaces_and_has_no_right_elsewhere(
    cluster: Cluster, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> None:
    release.ensure(NODE_PORTS)  # has the definitions, which only an administrator may install
    cluster.namespace(WATCHED)
    own = Release(cluster, tmp_path_factory.mktemp("own"), namespace=WATCHED)
    own.install(
        {
            "crds": {"enabled": False},
            "rbac": {"scope": "namespaced", "aggregate": False},
            "domain": "own.localhost",
        }
    )

    own.ready_token(WATCHED, "shop")

    for table, expected, where in (
        (MAY, {"yes"}, ("-n", WATCHED)),
        (MAY_NOT, {"no"}, ("-n", WATCHED)),
        (MAY_NOWHERE, {"no"}, ("-n", ELSEWHERE)),
        (NOT_ON_THE_CLUSTER, {"no"}, ("--all-namespaces",)),
    ):
        for verbs, resource in table:
            found = answers(cluster, verbs, resource, *where)
            assert found == expected, (verbs, resource, where)
    bound = cluster.kubectl("get", "clusterrolebindings", "-o", "json")
    assert WATCHED not in bound
    own.uninstall()
    cluster.kubectl("-n", WATCHED, "annotate", "ttok", "shop", "moleport.dev/force-delete=true")
