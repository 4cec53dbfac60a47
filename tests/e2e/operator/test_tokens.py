"""TunnelTokens through real processes: API server, operator, tunnel server, agent and curl."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers.origins import WebOrigin
from moleport_operator.credentials import digest, is_well_formed

pytestmark = pytest.mark.asyncio(loop_scope="session")


def secret_values(cluster: Any, name: str) -> dict[str, str]:
    body = cluster.get("secret", name)
    assert body is not None
    return {key: base64.b64decode(value).decode() for key, value in body["data"].items()}


async def ours(cluster: Any) -> dict[str, Any]:
    """Return the server's tokens that have an owner in this test's namespace, by name."""
    _, tokens = await cluster.rest("GET", "/api/tokens")
    found = {}
    for token in tokens:
        status, whole = await cluster.rest("GET", f"/api/tokens/{token['id']}")
        # One that went between the two calls is not there.
        if (
            status == 200
            and whole["owner"] is not None
            and whole["owner"]["namespace"] == cluster.namespace
        ):
            found[whole["owner"]["name"]] = whole
    return found


async def has_one_valid_credential(cluster: Any, name: str) -> bool:
    token = (await ours(cluster)).get(name)
    if token is None or len(token["credentials"]) != 1:
        return False
    sha256 = digest(secret_values(cluster, name)["token"])
    return bool(token["credentials"][0]["fingerprint"] == sha256[:16])


async def test_applying_a_token_gives_a_secret_within_two_seconds(cluster: Any) -> None:
    operator = await cluster.start_operator()
    cluster.apply("TunnelToken", "warm")
    await cluster.ready("warm")

    took = []
    for name in ("shop", "second", "third"):
        began = time.monotonic()
        cluster.apply("TunnelToken", name, spec={"access": {"http": {"hostnames": [name]}}})
        await cluster.ready(name)
        took.append(time.monotonic() - began)

    values = secret_values(cluster, "shop")
    assert is_well_formed(values["token"])
    assert values["url"] == f"https://shop.localhost:{cluster.site.https_port}"
    assert values["uri"] == f"https://control.localhost:{cluster.site.https_port}"
    # Two seconds, and kubectl's own starts; some may have waited for a core.
    assert min(took) < 3.0
    assert values["token"] not in operator.output
    events = cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    assert events.split() == ["Issued"] * 4


async def test_an_agent_serves_with_the_credential_of_the_secret(
    cluster: Any, tmp_path: Any
) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop", spec={"access": {"http": {"hostnames": ["shop"]}}})
    await cluster.ready("shop")
    (tmp_path / "token").write_text(secret_values(cluster, "shop")["token"])
    site = cluster.site

    async with WebOrigin() as origin:
        await site.start_agent(
            *("http", str(origin.port), "--name", "shop", "--token-file", tmp_path / "token"),
            *("--server", f"https://localhost:{site.control_port}"),
            *("--ca-file", site.ca_file),
        )

        def used() -> bool:
            usage = (cluster.get("ttok", "shop") or {})["status"].get("usage", {})
            return (usage.get("activeTunnels"), usage.get("activeAgents")) == (1, 1)

        await cluster.until(used, "usage in status")


async def test_kubectl_get_tells_what_matters(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop", spec={"lifetime": "24h"})
    await cluster.ready("shop")

    head, row = cluster.kubectl("get", "ttok").splitlines()
    wide = cluster.kubectl("get", "ttok", "-o", "wide").splitlines()[0]

    assert head.split() == ["NAME", "READY", "SECRET", "PROTOCOLS", "TUNNELS", "EXPIRES", "AGE"]
    assert row.split()[:5] == ["shop", "True", "shop", '["http"]', "0"]
    assert wide.split()[7:] == ["REASON", "MESSAGE", "TOKEN", "ID", "ROTATION"]


async def test_a_rotation_on_request_keeps_the_old_credential_for_the_overlap(
    cluster: Any,
) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop", spec={"rotation": {"overlap": "3s"}})
    await cluster.ready("shop")
    first = secret_values(cluster, "shop")["token"]

    cluster.kubectl("annotate", "ttok", "shop", "moleport.dev/rotate-requested=now")
    await cluster.until(lambda: secret_values(cluster, "shop")["token"] != first, "a new one")

    slots = (await ours(cluster))["shop"]["credentials"]
    assert [slot["revision"] for slot in slots] == [1, 2]
    assert slots[0]["fingerprint"] == digest(first)[:16]
    assert slots[0]["not_after"] is not None
    async with asyncio.timeout(15):
        while not await has_one_valid_credential(cluster, "shop"):
            await asyncio.sleep(0.1)


async def test_a_suspended_token_is_refused_and_comes_back(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")

    cluster.apply("TunnelToken", "shop", spec={"suspend": True})
    await cluster.until(lambda: cluster.condition("shop") == ("False", "Suspended"), "suspended")
    assert (await ours(cluster))["shop"]["suspended"]

    cluster.apply("TunnelToken", "shop", spec={"suspend": False})
    await cluster.ready("shop")
    assert not (await ours(cluster))["shop"]["suspended"]


async def test_a_deletion_revokes_and_names_the_secret_as_owned(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    token = cluster.get("ttok", "shop")
    owners = cluster.get("secret", "shop")["metadata"]["ownerReferences"]

    cluster.kubectl("delete", "ttok", "shop", "--timeout=20s")

    # Nobody collects garbage here; a cluster deletes the Secret by this reference.
    assert [(owner["kind"], owner["uid"]) for owner in owners] == [
        ("TunnelToken", token["metadata"]["uid"])
    ]
    assert await ours(cluster) == {}


async def test_a_deleted_and_an_edited_secret_are_repaired_within_one_resync(
    cluster: Any,
) -> None:
    await cluster.start_operator(resync=2)
    for name in ("lost", "edited"):
        cluster.apply("TunnelToken", name, spec={"rotation": {"overlap": "1s"}})
        await cluster.ready(name)
    old = secret_values(cluster, "edited")["token"]

    cluster.kubectl("delete", "secret", "lost")
    cluster.kubectl("patch", "secret", "edited", "-p", '{"stringData":{"token":"mine"}}')

    await cluster.until(lambda: cluster.get("secret", "lost"), "the lost one")
    await cluster.until(
        lambda: is_well_formed(secret_values(cluster, "edited")["token"]), "the edited one"
    )
    assert secret_values(cluster, "edited")["token"] != old
    async with asyncio.timeout(20):
        for name in ("lost", "edited"):
            while not await has_one_valid_credential(cluster, name):
                await asyncio.sleep(0.1)


async def test_a_strangers_secret_is_left_alone_and_the_token_says_why(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.kubectl("create", "secret", "generic", "shop", "--from-literal=token=hers")
    cluster.apply("TunnelToken", "shop")

    await cluster.until(
        lambda: cluster.condition("shop", "Stalled") == ("True", "SecretNotOwned"), "stalled"
    )

    assert secret_values(cluster, "shop") == {"token": "hers"}
    assert await ours(cluster) == {}


async def test_a_template_adds_labels_and_an_orphan_has_no_owner(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    assert "ownerReferences" in cluster.get("secret", "shop")["metadata"]

    secret = {"deletionPolicy": "Orphan", "template": {"labels": {"team": "a"}}}
    cluster.apply("TunnelToken", "shop", spec={"secret": secret})

    def is_free() -> bool:
        meta = cluster.get("secret", "shop")["metadata"]
        return not meta.get("ownerReferences") and meta["labels"].get("team") == "a"

    await cluster.until(is_free, "no owner")


async def test_a_server_without_its_database_gets_everything_again_without_rotation(
    cluster: Any,
) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    before = secret_values(cluster, "shop")["token"]
    admin = cluster.site.admin_token

    await cluster.site.server.kill()
    for file in cluster.site.data_dir.glob("*.db*"):
        file.unlink()
    await cluster.site.start_server()
    assert cluster.site.admin_token == admin

    async with asyncio.timeout(30):
        while not await has_one_valid_credential(cluster, "shop"):
            await asyncio.sleep(0.2)
    assert secret_values(cluster, "shop")["token"] == before


async def test_a_server_that_is_down_is_told_and_recovery_takes_seconds(cluster: Any) -> None:
    operator = await cluster.start_operator()
    for number in range(5):
        cluster.apply("TunnelToken", f"shop-{number}")
    for number in range(5):
        await cluster.ready(f"shop-{number}")
    secrets = [secret_values(cluster, f"shop-{number}") for number in range(5)]

    await cluster.site.server.kill()
    cluster.apply("TunnelToken", "late")
    await cluster.until(lambda: cluster.condition("late") == ("False", "ServerUnavailable"), "told")
    await operator.wait_line("the server is down")
    await cluster.until(
        lambda: cluster.condition("shop-0") == ("False", "ServerUnavailable"), "told by all", 60
    )
    assert [secret_values(cluster, f"shop-{number}") for number in range(5)] == secrets
    await cluster.site.start_server()

    began = time.monotonic()
    for name in ("late", *(f"shop-{number}" for number in range(5))):
        await cluster.ready(name, 30)
    assert time.monotonic() - began < 30


async def test_kill_9_at_any_time_leaves_one_valid_credential_per_token(cluster: Any) -> None:
    chance = random.Random(7)
    for number in range(8):
        spec = {"rotation": {"overlap": "1s"}}
        operator = await cluster.start_operator()
        cluster.apply("TunnelToken", f"shop-{number}", spec=spec)
        if number:
            now = f"moleport.dev/rotate-requested={number}"
            cluster.kubectl("annotate", "--overwrite", "ttok", f"shop-{number - 1}", now)
        await operator.wait_line("resources listed")
        await asyncio.sleep(chance.random() * 0.5)  # the crash comes when it likes
        await operator.kill()
        await operator.aclose()

    await cluster.start_operator(resync=3)
    for number in range(8):
        await cluster.ready(f"shop-{number}", 40)
    async with asyncio.timeout(30):
        for number in range(8):
            while not await has_one_valid_credential(cluster, f"shop-{number}"):
                await asyncio.sleep(0.2)
    assert set(await ours(cluster)) == {f"shop-{number}" for number in range(8)}


async def test_only_orphans_of_our_own_are_swept(cluster: Any) -> None:
    await cluster.start_operator(resync=1)
    cluster.apply("TunnelToken", "kept", spec={"deletionPolicy": "Retain"})
    cluster.apply("TunnelToken", "lost")
    for name in ("kept", "lost"):
        await cluster.ready(name)
    kept = cluster.get("ttok", "kept")["metadata"]["uid"]
    _, by_hand = await cluster.rest("POST", "/api/tokens", label="by hand")

    cluster.kubectl("delete", "ttok", "kept", "--timeout=20s")
    await cluster.operator.aclose()
    patch = '{"metadata":{"finalizers":null}}'
    cluster.kubectl("patch", "ttok", "lost", "--type=merge", "-p", patch)
    cluster.kubectl("delete", "ttok", "lost")
    await cluster.start_operator(resync=1)

    async with asyncio.timeout(40):
        while "lost" in await ours(cluster):
            await asyncio.sleep(0.2)
    assert (await ours(cluster))["kept"]["label"] == f"retained: {cluster.namespace}/kept"
    assert (await cluster.rest("GET", f"/api/tokens/{kept}"))[0] == 200
    assert (await cluster.rest("GET", f"/api/tokens/{by_hand['id']}"))[0] == 200


async def test_metrics_have_the_names_that_dashboards_know(cluster: Any) -> None:
    await cluster.start_operator()
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")

    families = {
        family.name: family for family in text_string_to_metric_families(await cluster.metrics())
    }

    assert {
        "controller_runtime_reconcile",
        "controller_runtime_reconcile_time_seconds",
        "workqueue_depth",
        "moleport_operator_server_requests",
        "moleport_operator_token_ready",
        "leader_election_master_status",
    } <= set(families)
    ready = {
        (sample.labels["namespace"], sample.labels["name"]): sample.value
        for sample in families["moleport_operator_token_ready"].samples
    }
    assert ready[cluster.namespace, "shop"] == 1


async def test_two_operators_with_a_lease_work_one_after_the_other(cluster: Any) -> None:
    first = await cluster.start_operator("--lease=moleport/test", "--identity=one")
    await first.wait_line("resources listed")
    second = await cluster.start_operator("--lease=moleport/test", "--identity=two")
    await second.wait_line("health listener open")
    cluster.apply("TunnelToken", "shop")
    await cluster.ready("shop")
    assert "lease held" not in second.output
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{cluster.health_port}/readyz"
        async with session.get(url) as answer:
            # Ready, or a rolling update of both would wait for the second one for ever.
            assert (answer.status, "stands by" in await answer.text()) == (200, True)

    await first.aclose()

    await second.wait_line("lease held", seconds=40)
    cluster.apply("TunnelToken", "next")
    await cluster.ready("next")
