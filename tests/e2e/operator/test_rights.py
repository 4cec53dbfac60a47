"""The rights of the operator are those that it uses: the audit log of a real API server says which."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from helpers.kube_apiserver import ApiServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEVER_USED_HERE = {
    # The admission plugin OwnerReferencesPermissionEnforcement asks for it, where a cluster has it on.
    ("moleport.dev", "tunneltokens/finalizers", "update"),
}


def granted(root: Any) -> set[tuple[str, str, str]]:
    """Return what the rendered roles of the operator allow, as triples."""
    bodies = [
        body
        for name in ("operator.yaml", "lease.yaml")
        for body in yaml.safe_load_all((root / "manifests" / "rbac" / name).read_text("utf-8"))
        if body["kind"] in {"Role", "ClusterRole"}
    ]
    return {
        (group, resource, verb)
        for body in bodies
        for rule in body["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def lose_one_of_each_kind(cluster: Any) -> None:
    """Leave orphans at the server: the operator asks for each by name before it deletes it there."""
    lost = {"ttok": "lost", "tpol": "lost", "ctpol": f"{cluster.namespace}-lost"}
    few = {"limits": {"maxTunnelsPerToken": 5}}
    cluster.apply("TunnelToken", lost["ttok"])
    cluster.apply(
        "TunnelPolicy", lost["tpol"], spec=few | {"targetRefs": [{"kind": "TunnelToken"}]}
    )
    targets = [{"kind": "Namespace", "name": cluster.namespace}]
    cluster.apply("ClusterTunnelPolicy", lost["ctpol"], spec=few | {"targetRefs": targets})
    await cluster.ready(lost["ttok"])
    for kind in ("tpol", "ctpol"):
        await cluster.until(
            lambda kind=kind: cluster.condition(lost[kind], "Enforced", kind)[0] == "True", kind
        )
    await cluster.operator.aclose()
    for kind, name in lost.items():
        let_go = '{"metadata":{"finalizers":null}}'
        cluster.kubectl("patch", kind, name, "--type=merge", "-p", let_go)
        cluster.kubectl("delete", kind, name, "--timeout=20s")


async def test_the_operator_has_the_rights_that_it_uses_and_no_others(
    cluster: Any, apiserver: ApiServer, pytestconfig: pytest.Config
) -> None:
    everything = {"targetRefs": [{"kind": "TunnelToken"}], "tokens": {"maxTokens": 5}}
    everywhere = {"targetRefs": [{"kind": "Namespace", "name": cluster.namespace}]}
    cluster.apply("TunnelPolicy", "five", spec=everything)
    cluster.apply(
        "ClusterTunnelPolicy",
        cluster.namespace,
        spec={**everywhere, "limits": {"burst": 5, "requestsPerSecond": 5}},
    )
    lease = f"--lease=moleport/{cluster.namespace}"
    await cluster.start_operator(lease, resync=1)
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    await lose_one_of_each_kind(cluster)
    await cluster.start_operator(lease, resync=1)
    # The same again is one Event that counts.
    for is_suspended, wanted in ((True, "Suspended"), (False, "Issued"), (True, "Suspended")):
        cluster.apply("TunnelToken", "shop", spec={"suspend": is_suspended})
        await cluster.until(lambda: cluster.condition("shop")[1] == wanted, wanted)  # noqa: B023
    # A Secret that somebody deletes, and everything leaves.
    cluster.kubectl("delete", "secret", "shop")
    await cluster.until(lambda: cluster.get("secret", "shop"), "the Secret again")
    cluster.kubectl("delete", "ttok", "shop", "--timeout=20s")
    cluster.kubectl("delete", "tpol", "five", "--timeout=20s")
    cluster.kubectl("delete", "ctpol", cluster.namespace, "--timeout=20s")
    rights = granted(pytestconfig.rootpath)

    def used_rights() -> set[tuple[str, str, str]]:
        return {right for right in apiserver.used_rights() if right[0] != "authorization.k8s.io"}

    # A Lease is renewed every two seconds, and the log is written behind.
    await cluster.until(lambda: rights - used_rights() <= NEVER_USED_HERE, "every right is used")
    await cluster.operator.aclose()
    used = used_rights()

    assert used - rights == set()
    assert rights - used == NEVER_USED_HERE
