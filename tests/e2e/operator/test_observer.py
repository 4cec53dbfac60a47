"""What somebody else's client sees: the official one for Python, which shares no code with the operator."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from kubernetes import client, config, watch

pytestmark = pytest.mark.asyncio(loop_scope="session")

GROUP, VERSION, TOKENS = "moleport.dev", "v1alpha1", "tunneltokens"


@pytest.fixture
def official(cluster: Any) -> Iterator[Any]:
    """A client of the official library, as the admin."""
    with config.new_client_from_config(str(cluster.api.kubeconfig)) as found:
        yield found


async def ask(call: Any, *arguments: Any) -> Any:
    """Make a call of the library, which waits, in a thread."""
    return await asyncio.to_thread(partial(call, *arguments))


def token(name: str, **spec: Any) -> dict[str, Any]:
    kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "TunnelToken"}
    return kind | {"metadata": {"name": name}, "spec": spec}


async def test_a_watcher_sees_a_token_become_ready_and_its_secret_fit(
    cluster: Any, official: Any
) -> None:
    await cluster.start_operator()
    objects, core = client.CustomObjectsApi(official), client.CoreV1Api(official)
    place = (GROUP, VERSION, cluster.namespace, TOKENS)

    def until_ready() -> dict[str, Any]:
        stream = watch.Watch().stream(
            objects.list_namespaced_custom_object, *place, timeout_seconds=20
        )
        for event in stream:
            conditions = event["object"].get("status", {}).get("conditions", [])
            if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                found: dict[str, Any] = event["object"]
                return found
        raise AssertionError("never ready")

    wanted = token("shop", lifetime="24h", access={"http": {"hostnames": ["shop"]}})
    await ask(objects.create_namespaced_custom_object, *place, wanted)
    seen = await ask(until_ready)
    secret = await ask(core.read_namespaced_secret, "shop", cluster.namespace)
    events = await ask(client.EventsV1Api(official).list_namespaced_event, cluster.namespace)

    status, meta = seen["status"], seen["metadata"]
    kinds = {each["type"]: each["status"] for each in status["conditions"]}
    assert kinds == dict.fromkeys(
        ("Ready", "ServerSynced", "SecretSynced", "PolicyApplied"), "True"
    )
    assert all(each["observedGeneration"] == 1 for each in status["conditions"])
    assert status["observedGeneration"] == meta["generation"] == 1
    assert status["binding"] == {"name": "shop"}
    assert status["tokenID"] == meta["uid"]
    issued, renewed, ends = (
        datetime.fromisoformat(status[name])
        for name in ("issuedTime", "renewalTime", "expirationTime")
    )
    assert (renewed - issued).total_seconds() == 16 * 3600
    assert (ends - issued).total_seconds() == 24 * 3600
    assert set(secret.data) == {"type", "uri", "token", "token-id", "url"}
    assert base64.b64decode(secret.data["token-id"]).decode() == meta["uid"]
    (owner,) = secret.metadata.owner_references
    assert (owner.kind, owner.uid, owner.controller) == ("TunnelToken", meta["uid"], True)
    (event,) = events.items
    assert (event.type, event.reason, event.regarding.uid) == ("Normal", "Issued", meta["uid"])


async def test_each_side_owns_its_fields_and_neither_touches_the_others(
    cluster: Any, official: Any
) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    objects = client.CustomObjectsApi(official)
    place = (GROUP, VERSION, cluster.namespace, TOKENS, "shop")
    before = await ask(objects.get_namespaced_custom_object, *place)

    # An editor of the spec changes no status, whatever it writes there.
    forged = {"status": {"revision": 99}, "metadata": {"labels": {"team": "a"}}}
    await ask(objects.patch_namespaced_custom_object, *place, forged)
    # A second applier of the spec keeps its own fields when the operator writes.
    applied = token("shop", limits={"maxTunnels": 3})
    text = json.dumps(applied)
    cluster.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", "-", given=text)
    await cluster.until(
        lambda: cluster.get("ttok", "shop")["status"]["observedGeneration"] == 2, "the edit"
    )
    after = await ask(objects.get_namespaced_custom_object, *place)

    assert after["status"]["revision"] == before["status"]["revision"] == 1
    assert after["metadata"]["labels"] == {"team": "a"}
    assert after["spec"]["limits"] == {"maxTunnels": 3}
    owned = {
        entry["manager"]: (entry.get("subresource", ""), sorted(entry["fieldsV1"]))
        for entry in after["metadata"]["managedFields"]
        if entry["operation"] == "Apply"
    }
    assert owned["moleport-operator"] == ("status", ["f:status"])
    assert owned["gitops"] == ("", ["f:spec"])


async def test_the_operator_leaves_the_labels_that_others_put_on_a_secret(
    cluster: Any, official: Any
) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    core = client.CoreV1Api(official)
    patch = {"metadata": {"labels": {"backup": "yes"}, "annotations": {"reloader": "on"}}}
    place = ("shop", cluster.namespace)
    await ask(core.patch_namespaced_secret, *place, patch)
    old = cluster.get("secret", "shop")["data"]["token"]

    cluster.kubectl("annotate", "ttok", "shop", "moleport.dev/rotate-requested=now")
    await cluster.until(
        lambda: cluster.get("secret", "shop")["data"]["token"] != old, "a new credential"
    )

    secret = await ask(core.read_namespaced_secret, *place)
    assert secret.metadata.labels["backup"] == "yes"
    assert secret.metadata.annotations["reloader"] == "on"


async def test_what_comes_and_goes_is_one_event_with_a_count(cluster: Any, official: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    for _ in range(2):
        cluster.apply("TunnelToken", "shop", spec={"suspend": True})
        await cluster.until(lambda: cluster.condition("shop")[1] == "Suspended", "suspended")
        cluster.apply("TunnelToken", "shop", spec={"suspend": False})
        await cluster.ready("shop")

    def counts() -> dict[str, int]:
        found = client.EventsV1Api(official).list_namespaced_event(cluster.namespace).items
        return {event.reason: event.series.count if event.series else 1 for event in found}

    await cluster.until(lambda: counts() == {"Issued": 3, "Suspended": 2}, "the series")


async def test_kubectl_shows_policies_and_everything_about_tunnels(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop", spec={"lifetime": "24h"})
    bound = {"targetRefs": [{"kind": "TunnelToken"}], "limits": {"maxTunnelsPerToken": 1}}
    cluster.apply("TunnelPolicy", "few", spec=bound)
    await cluster.ready("shop")
    await cluster.until(
        lambda: (cluster.get("tpol", "few") or {}).get("status", {}).get("attachedTokens"), "one"
    )

    def shown() -> list[list[str]]:
        return [line.split() for line in cluster.kubectl("get", "tpol").splitlines()]

    await cluster.until(lambda: shown()[1][1:4] == ["True", "True", "1"], "accepted")
    assert shown()[0] == ["NAME", "ACCEPTED", "ENFORCED", "TOKENS", "AGE"]
    both = cluster.kubectl("get", "tunnels", "-o", "name").split()
    assert {name.partition(".")[0] for name in both} >= {"tunneltoken", "tunnelpolicy"}
    wide = cluster.kubectl("get", "ttok", "-o", "wide").splitlines()[1]
    assert "Issued" in wide
    assert cluster.get("ttok", "shop")["status"]["renewalTime"] in wide
    waited = cluster.kubectl("wait", "--for=condition=Ready", "ttok/shop", "--timeout=10s")
    assert "condition met" in waited
    only = cluster.kubectl("get", "ttok", "--field-selector=spec.suspend=true", "-o", "name")
    assert only.strip() == ""
    assert max(len(line) for line in cluster.kubectl("get", "ttok").splitlines()) <= 120
