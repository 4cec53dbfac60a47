from pathlib import Path

import pytest

from helpers.kube_api import CLUSTER_POLICIES, POLICIES, TOKENS, Call, KubeApi
from moleport_operator import drain as module
from moleport_operator.drain import drain
from moleport_operator.resources import FINALIZER

TARGETS = {"targetRefs": [{"kind": "TunnelToken"}]}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubeApi:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    api = KubeApi()
    held = [FINALIZER, "a.b/c"]
    api.create(TOKENS, {"metadata": {"name": "shop", "finalizers": [FINALIZER]}})
    api.create(TOKENS, {"metadata": {"name": "far", "namespace": "b", "finalizers": [FINALIZER]}})
    api.create(POLICIES, {"metadata": {"name": "strict", "finalizers": held}, "spec": TARGETS})
    api.create(CLUSTER_POLICIES, {"metadata": {"name": "wide"}})
    return api


def left(api: KubeApi) -> set[str]:
    kinds = (TOKENS, POLICIES, CLUSTER_POLICIES)
    return {body["metadata"]["name"] for kind in kinds for body in api.bodies(kind)}


async def test_it_waits_until_the_operator_let_everything_go(api: KubeApi, tmp_path: Path) -> None:
    lists = 0

    async def operate(call: Call) -> None:
        nonlocal lists
        lists += call.verb == "list"
        if lists == 7:  # some rounds later
            for kind in (TOKENS, POLICIES):
                for body in list(api.bodies(kind)):
                    meta = body["metadata"]
                    api.edit(kind, meta["name"], meta["namespace"], metadata={"finalizers": None})

    api.before = operate
    said: list[str] = []
    async with api:
        api.write_kubeconfig(tmp_path / "kubeconfig")
        count = await drain((), seconds=10, is_forced=False, say=said.append)

    assert count == 0
    assert left(api) == set()
    assert said == ["deleting 4 resources"]


async def test_what_is_left_is_counted_and_another_namespace_not_touched(
    api: KubeApi, tmp_path: Path
) -> None:
    async with api:
        api.write_kubeconfig(tmp_path / "kubeconfig")
        count = await drain(("default",), seconds=0.05, is_forced=False, say=lambda _: None)

    assert count == 2
    assert left(api) == {"shop", "strict", "far", "wide"}
    far = api.get(TOKENS, "far", "b")
    assert far is not None
    assert "deletionTimestamp" not in far["metadata"]


async def test_force_removes_our_finalizer_and_nobody_elses(api: KubeApi, tmp_path: Path) -> None:
    async with api:
        api.write_kubeconfig(tmp_path / "kubeconfig")
        count = await drain((), seconds=0.05, is_forced=True, say=lambda _: None)

    assert count == 1
    strict = api.get(POLICIES, "strict")
    assert strict is not None
    assert strict["metadata"]["finalizers"] == ["a.b/c"]
