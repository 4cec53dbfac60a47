"""The operator as a process, with a Kubernetes API in memory and the real tunnel server: everywhere.

The API in memory lets happen what a real one does on its bad days. What only a real one can judge, schemas
and rights, is in the modules beside this one.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from helpers.kube_api import EVENTS, POLICIES, SECRETS, TOKENS, Call
from helpers.operator_rig import OperatorRig
from moleport_operator.plan.conditions import find_condition

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVERY_TOKEN = [{"kind": "TunnelToken"}]
WRITES = (
    "patch/tunneltokens",
    "PUT /api/tokens",
    "create/secrets",
    "PUT /api/tokens/credentials",
    "patch/secrets",
    "patch/tunneltokens/status",
    "create/events",
    "DELETE /api/tokens/credentials",
    "DELETE /api/tokens",
)
"""Everything that a token makes the operator write, from its first finalizer to its revocation."""
STRANGER = {"metadata": {"name": "strangers"}, "data": {"token": "aGVycw=="}}


@pytest_asyncio.fixture(loop_scope="session")
async def rig(tmp_path: Path) -> AsyncIterator[OperatorRig]:
    async with OperatorRig(tmp_path) as rig:
        yield rig


def no_secret_is_told(rig: OperatorRig) -> None:
    """Look for every credential in everything that others can read."""
    told = "\n".join(running.output for running in rig.site.running)
    told += json.dumps([list(rig.kube.bodies(kind)) for kind in (TOKENS, POLICIES, EVENTS)])
    for body in rig.kube.bodies(SECRETS):
        text = rig.secret(body["metadata"]["name"]).get("token")
        assert text is None or text not in told


async def test_a_token_lives_from_its_creation_to_its_end(rig: OperatorRig) -> None:
    first = await rig.start_operator()
    rig.apply("warm")
    await rig.ready("warm")
    took = []
    for name in ("shop", "second", "third"):
        began = time.monotonic()
        rig.apply(name, access={"http": {"hostnames": [name]}}, rotation={"overlap": "1s"})
        await rig.ready(name)
        took.append(time.monotonic() - began)
    assert min(took) < 2  # the others may have waited for a core
    assert rig.secret("shop")["url"] == f"https://shop.localhost:{rig.site.https_port}"
    await rig.one_valid_credential("shop")

    # An edit, and a policy that bounds it.
    rig.apply("shop", access={"http": {"hostnames": ["shop", "till"]}}, rotation={"overlap": "1s"})
    spec = {"targetRefs": EVERY_TOKEN, "access": {"hostnames": ["till"]}}
    rig.kube.create(POLICIES, {"metadata": {"name": "till-only"}, "spec": spec})
    await rig.until(
        lambda: rig.condition("shop", "PolicyApplied") == ("True", "Restricted"), "restricted"
    )
    assert (await rig.ours())["shop"]["effective"]["access"]["hostnames"] == ["till.localhost"]

    # While the operator is away: a suspension, the end of the policy, and a wish to rotate.
    await first.aclose()
    rig.kube.edit(TOKENS, "warm", spec={"suspend": True})
    rig.kube.delete(POLICIES, "till-only")
    before = rig.secret("shop")["token"]
    rotate = {"annotations": {"moleport.dev/rotate-requested": "1"}}
    rig.kube.edit(TOKENS, "shop", metadata=rotate)
    await rig.start_operator()
    await rig.until(lambda: rig.condition("warm") == ("False", "Suspended"), "suspended")
    await rig.until(lambda: rig.kube.get(POLICIES, "till-only") is None, "the policy's end")
    await rig.until(lambda: rig.secret("shop")["token"] != before, "a new credential")
    await rig.one_valid_credential("shop")
    assert (await rig.ours())["warm"]["suspended"]
    rig.kube.edit(TOKENS, "warm", spec={"suspend": False})
    await rig.ready("warm")

    for name in ("shop", "second", "third", "warm"):
        rig.kube.delete(TOKENS, name)
    await rig.until(lambda: not list(rig.kube.bodies(TOKENS)), "the end")
    assert await rig.ours() == {}
    assert not list(rig.kube.bodies(SECRETS))
    reasons = [event["reason"] for event in rig.kube.bodies(EVENTS)]
    assert {"Issued", "Rotated", "Suspended", "Enforced"} <= set(reasons)
    no_secret_is_told(rig)


async def test_watches_that_end_expire_or_say_nothing_lose_no_change(rig: OperatorRig) -> None:
    rig.kube.bookmark_seconds = 0.2
    await rig.start_operator()
    rig.apply("first")
    await rig.ready("first")

    rig.kube.drop_watches()
    rig.apply("after-a-drop")
    await rig.ready("after-a-drop")

    # 410: what happened meanwhile is in no watch any more.
    rig.kube.drop_watches()
    rig.apply("after-410")
    rig.kube.forget_history()
    await rig.ready("after-410")

    rig.kube.latency_seconds = 0.2
    began = time.monotonic()
    for number in range(20):
        rig.apply(f"slow-{number}")
    for number in range(20):
        await rig.ready(f"slow-{number}", 40)
    assert time.monotonic() - began < 30

    # Nothing happens any more: bookmarks alone say that the watch lives.
    heard = await last_heard(rig, "tunneltokens")
    async with asyncio.timeout(20):
        while await last_heard(rig, "tunneltokens") <= heard + 1:
            await asyncio.sleep(0.1)
    assert await rig.health("/livez") == (200, "ok\n")
    assert (await rig.health("/readyz"))[0] == 200


async def last_heard(rig: OperatorRig, plural: str) -> float:
    _, text = await rig.health("/metrics")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("watch_last_event_timestamp_seconds") and (
                sample.labels["resource"] == plural
            ):
                return sample.value
    return 0.0


class Crash:
    """Kills the operator at a write, before the effect or when nobody heard of it yet.

    An end between a read and what follows is the same as one before the next write.
    """

    def __init__(self, rig: OperatorRig) -> None:
        self._rig = rig
        self._at: tuple[str, bool] | None = None
        before, after = partial(self._see, is_after=False), partial(self._see, is_after=True)
        rig.kube.before, rig.kube.after = before, after
        rig.gate.before, rig.gate.after = before, after

    def arm(self, write: str, *, is_after: bool) -> None:
        self._at = (write, is_after)

    async def _see(self, call: Call | str, *, is_after: bool) -> web.Response | None:
        name = re.sub(r"/[0-9a-f-]{36}|/[0-9]+$", "", str(call))
        if self._at != (name, is_after):
            return None
        self._at = None
        os.kill(self._rig.operator.pid, signal.SIGKILL)
        return web.Response(status=500)  # to nobody


@pytest.mark.timeout(180)
async def test_kill_9_between_any_two_calls_leaves_one_valid_credential_each(
    rig: OperatorRig,
) -> None:
    """Each life of the operator has a new token, two to rotate and one to revoke, and ends at a write."""
    crash = Crash(rig)
    rig.kube.create(SECRETS, STRANGER)
    by_hand = await rig.site.api("POST", "/api/tokens", {"label": "by hand"})
    lives = list(itertools.product(WRITES, [False, True]))
    for life, (write, is_after) in enumerate(lives):
        rig.apply(f"shop-{life}", rotation={"overlap": "1s"})
        for older in range(max(0, life - 2), life):
            rotate = {"annotations": {"moleport.dev/rotate-requested": str(life)}}
            rig.kube.edit(TOKENS, f"shop-{older}", metadata=rotate)
        if life >= 3:
            rig.kube.delete(TOKENS, f"shop-{life - 3}")
        crash.arm(write, is_after=is_after)
        operator = await rig.start_operator()
        assert await operator.wait_exit() == -signal.SIGKILL
        await operator.aclose()

    await rig.start_operator("--usage-interval=1", resync=2)
    names = [f"shop-{number}" for number in range(len(lives) - 3, len(lives))]
    for name in names:
        await rig.ready(name, 40)
        await rig.one_valid_credential(name, 40)
    assert sorted(await rig.ours()) == sorted(names)
    secrets = {body["metadata"]["name"] for body in rig.kube.bodies(SECRETS)}
    assert secrets == {*names, "strangers"}
    assert rig.secret("strangers") == {"token": "hers"}
    rows = await rig.site.api("GET", "/api/tokens")
    assert by_hand["id"] in {row["id"] for row in rows}
    no_secret_is_told(rig)


async def test_refusals_of_every_kind_on_both_sides_heal(rig: OperatorRig) -> None:
    chance, is_bad = random.Random(11), True

    async def cluster(call: Call) -> web.Response | None:
        if not is_bad or call.verb in {"list", "watch"} or chance.random() > 0.15:
            return None
        return web.json_response({"message": "not now"}, status=chance.choice([409, 429, 500, 504]))

    async def server(call: str) -> web.Response | None:
        if not is_bad or chance.random() > 0.15:
            return None
        code = chance.choice([409, 412, 429, 500, 503])
        return web.json_response({"error": "not now"}, status=code, headers={"Retry-After": "1"})

    async def lost(call: Call | str) -> web.Response | None:
        """Answer that nothing happened, although it did."""
        if not is_bad or str(call).startswith(("list", "watch")) or chance.random() > 0.05:
            return None
        return web.json_response({"error": "gateway timeout"}, status=504)

    rig.kube.before, rig.gate.before = cluster, server
    rig.kube.after = rig.gate.after = lost
    await rig.start_operator(resync=2)
    for number in range(12):
        rig.apply(f"shop-{number}", rotation={"overlap": "1s"})
    await asyncio.sleep(3)  # calls come and fail, however many that are
    for number in range(4):
        rig.kube.delete(TOKENS, f"shop-{number}")
    is_bad = False

    await rig.until(lambda: len(list(rig.kube.bodies(TOKENS))) == 8, "four ends", 60)
    for number in range(4, 12):
        await rig.ready(f"shop-{number}", 60)
        await rig.one_valid_credential(f"shop-{number}", 60)
    assert sorted(await rig.ours()) == sorted(f"shop-{number}" for number in range(4, 12))


async def test_a_resync_of_many_asks_the_server_page_by_page_and_mends_what_is_amiss(
    rig: OperatorRig,
) -> None:
    names = [f"shop-{number}" for number in range(120)]
    for name in names:
        rig.apply(name, rotation={"overlap": "1s"})
    await rig.start_operator(resync=2)
    for name in names:
        await rig.ready(name, 60)
    before = {name: rig.secret(name)["token"] for name in names}

    rows = await rig.ours()
    await rig.site.api("DELETE", f"/api/tokens/{rows['shop-3']['id']}")
    await rig.site.api("DELETE", f"/api/tokens/{rows['shop-5']['id']}/credentials/1")
    rig.kube.delete(SECRETS, "shop-7")
    for name in ("shop-3", "shop-5", "shop-7"):
        await rig.one_valid_credential(name, 40)
    assert {name for name in names if rig.secret(name)["token"] != before[name]} == {"shop-7"}

    # All is well again: rounds read Secrets, and lists of the server tell them the rest.
    await rig.until(lambda: rig.condition("shop-7") == ("True", "Issued"), "shop-7 again")
    rig.gate.calls.clear()
    rounds = rig.kube.calls["get/secrets"]
    await rig.until(lambda: rig.kube.calls["get/secrets"] >= rounds + 360, "three resyncs", 60)
    own = sum(call.startswith("GET /api/tokens/") for call in rig.gate.calls)
    assert rig.gate.calls.count("GET /api/tokens") > 30
    assert own < 120, "most rounds should not ask the server themselves"


async def test_a_server_that_is_down_is_asked_by_one_probe_and_everybody_recovers(
    rig: OperatorRig,
) -> None:
    await rig.start_operator()
    for number in range(30):
        rig.apply(f"shop-{number}")
    for number in range(30):
        await rig.ready(f"shop-{number}")
    credentials = {number: rig.secret(f"shop-{number}")["token"] for number in range(30)}

    async def down(_: str) -> web.Response:
        return web.json_response({"error": "away"}, status=503)

    rig.gate.before = down
    for number in range(10):
        rig.apply(f"late-{number}")
    for number in range(10):
        name = f"late-{number}"
        await rig.until(lambda n=name: rig.condition(n) == ("False", "ServerUnavailable"), name)  # type: ignore[misc]
    assert (await rig.health("/readyz"))[0] == 503
    assert (await rig.health("/livez"))[0] == 200
    rig.gate.calls.clear()
    await asyncio.sleep(4)  # how often a server is asked that is down needs a while of being down
    assert set(rig.gate.calls) <= {"GET /api/server"}
    assert len(rig.gate.calls) <= 4

    began = time.monotonic()
    rig.gate.before = pass_all
    for number in range(10):
        await rig.ready(f"late-{number}", 30)
    assert time.monotonic() - began < 30
    assert {n: rig.secret(f"shop-{n}")["token"] for n in range(30)} == credentials


async def pass_all(_: Any) -> None:
    return None


async def test_two_policies_with_different_passwords_say_so_until_one_of_them_goes(
    rig: OperatorRig,
) -> None:
    def enforced(name: str) -> tuple[str, str]:
        status = (rig.kube.get(POLICIES, name) or {}).get("status") or {}
        found = find_condition(status, "Enforced")
        return found.get("status", ""), found.get("reason", "")

    for name in ("ann", "bob"):
        line = base64.b64encode(f"{name}:$2y$05${'a' * 53}".encode()).decode()
        rig.kube.create(SECRETS, {"metadata": {"name": name}, "data": {"auth": line}})
        http = {"auth": {"basic": {"secretRef": {"name": name}}}}
        spec = {"targetRefs": EVERY_TOKEN, "http": http}
        rig.kube.create(POLICIES, {"metadata": {"name": name}, "spec": spec})
    rig.apply("shop")
    first = await rig.start_operator()
    for name in ("ann", "bob"):
        await rig.until(lambda n=name: enforced(n) == ("False", "AuthConflict"), name)  # type: ignore[misc]
    await rig.until(
        lambda: rig.condition("shop", "PolicyApplied") == ("True", "Restricted"), "restricted"
    )
    assert (await rig.ours())["shop"]["effective"]["http"]["denied"]

    # A restart is no news: nobody is told again.
    await first.aclose()
    rig.kube.calls.clear()
    await rig.start_operator()
    await rig.until(lambda: rig.kube.calls["get/secrets"] >= 3, "a round of everybody")
    rig.apply("till")
    await rig.ready("till")

    rig.kube.delete(POLICIES, "ann")
    await rig.until(lambda: enforced("bob") == ("True", "Enforced"), "bob alone")
    told = [event["reason"] for event in rig.kube.bodies(EVENTS)]
    assert told.count("AuthConflict") == 2
    no_secret_is_told(rig)


async def test_an_edit_of_a_policy_is_told_in_its_tokens_also_by_a_slow_server(
    rig: OperatorRig,
) -> None:
    async def slow(call: str) -> None:
        if call.startswith("PUT /api/policies/"):
            await asyncio.sleep(0.5)  # the rounds of the tokens are over by then

    def bound(*hostnames: str) -> dict[str, Any]:
        return {"targetRefs": EVERY_TOKEN, "access": {"hostnames": list(hostnames)}}

    rig.gate.before = slow
    rig.kube.create(POLICIES, {"metadata": {"name": "bounds"}, "spec": bound("shop", "till")})
    rig.apply("shop", access={"http": {"hostnames": ["shop", "till"]}})
    await rig.start_operator()
    await rig.ready("shop")
    assert rig.condition("shop", "PolicyApplied") == ("True", "Applied")

    rig.kube.edit(POLICIES, "bounds", spec=bound("till"))
    await rig.until(
        lambda: rig.condition("shop", "PolicyApplied") == ("True", "Restricted"), "restricted"
    )
    rig.kube.edit(POLICIES, "bounds", spec=bound("elsewhere"))
    await rig.until(lambda: rig.condition("shop") == ("False", "DeniedByPolicy"), "nothing left")
    rig.kube.edit(POLICIES, "bounds", spec=bound("shop", "till"))
    await rig.ready("shop")

    await rig.until(
        lambda: rig.condition("shop", "PolicyApplied") == ("True", "Applied"), "all of it"
    )
    await rig.one_valid_credential("shop")


async def test_changes_that_come_and_go_make_one_event_with_a_count(rig: OperatorRig) -> None:
    await rig.start_operator()
    rig.apply("shop")
    await rig.ready("shop")
    for _ in range(3):
        rig.kube.edit(TOKENS, "shop", spec={"suspend": True})
        await rig.until(lambda: rig.condition("shop") == ("False", "Suspended"), "suspended")
        rig.kube.edit(TOKENS, "shop", spec={"suspend": False})
        await rig.ready("shop")

    def counts() -> dict[str, int]:
        return {
            event["reason"]: (event.get("series") or {"count": 1})["count"]
            for event in rig.kube.bodies(EVENTS)
        }

    await rig.until(lambda: counts() == {"Issued": 4, "Suspended": 3}, "series")
    assert len(list(rig.kube.bodies(EVENTS))) == 2
