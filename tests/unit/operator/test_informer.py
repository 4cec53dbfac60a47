import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.kube_api import NAMESPACES, TOKENS, KubeApi
from moleport_operator.clock import SystemClock
from moleport_operator.informer import InformerStopped, run_informer
from moleport_operator.watch_life import WatchLife


class Ear:
    """What was heard, and a wait for more."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None, str]] = []

    def __call__(self, plural: str, kind: str | None, body: Mapping[str, Any]) -> None:
        self.events.append((plural, kind, body["metadata"]["name"]))

    async def hear(self, *event: str | None) -> None:
        async with asyncio.timeout(15):
            while event not in self.events:
                await asyncio.sleep(0.01)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


async def test_what_is_there_and_what_happens_is_heard_until_the_end(config: Path) -> None:
    ear, life, calls = Ear(), WatchLife(SystemClock()), []
    async with KubeApi() as api:
        api.write_kubeconfig(config)
        api.bookmark_seconds = 0.1
        api.create(TOKENS, {"metadata": {"name": "old"}})
        async with run_informer(
            ("tunneltokens",),
            namespaces=(),
            watches_namespaces=True,
            heard=ear,
            life=life,
            observe=lambda *call: calls.append(call),
        ) as ended:
            await ear.hear("tunneltokens", None, "old")
            await ear.hear("namespaces", None, "default")
            api.create(TOKENS, {"metadata": {"name": "new"}})
            await ear.hear("tunneltokens", "ADDED", "new")
            api.edit(TOKENS, "new", spec={"suspend": True})
            await ear.hear("tunneltokens", "MODIFIED", "new")
            api.delete(TOKENS, "new")
            await ear.hear("tunneltokens", "DELETED", "new")
            quiet_since = life.last_heard()["tunneltokens"]
            async with asyncio.timeout(15):
                while life.last_heard()["tunneltokens"] == quiet_since:
                    await asyncio.sleep(0.01)  # bookmarks
            assert not ended.done()
        api.create(NAMESPACES, {"metadata": {"name": "later"}})

    assert life.silent() is None
    assert {(status, method) for status, method, _, _ in calls} == {("200", "GET")}
    assert ("namespaces", "ADDED", "later") not in ear.events


async def test_only_the_namespaces_that_were_asked_for_are_heard(config: Path) -> None:
    ear = Ear()
    async with KubeApi() as api:
        api.write_kubeconfig(config)
        for namespace in ("mine", "theirs"):
            metadata = {"name": f"of-{namespace}", "namespace": namespace}
            api.create(TOKENS, {"metadata": metadata})
        async with run_informer(
            ("tunneltokens",),
            namespaces=("mine",),
            watches_namespaces=False,
            heard=ear,
            life=WatchLife(SystemClock()),
            observe=lambda *_: None,
        ):
            await ear.hear("tunneltokens", None, "of-mine")

    assert {name for _, _, name in ear.events} == {"of-mine"}


async def test_the_end_of_kopf_is_an_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("a watch ended for good")

    monkeypatch.setattr("kopf.run", fail)
    async with run_informer(
        (),
        namespaces=(),
        watches_namespaces=False,
        heard=Ear(),
        life=WatchLife(SystemClock()),
        observe=lambda *_: None,
    ) as ended:
        with pytest.raises(InformerStopped, match="ended for good"):
            async with asyncio.timeout(20):
                await ended
