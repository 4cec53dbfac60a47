import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from helpers.kube_api import SECRETS, TOKENS, KubeApi
from helpers.kube_client import open_client
from moleport_operator.errors import Conflict
from moleport_operator.kube import Kube
from moleport_operator.kube_cluster import KubeCluster
from moleport_operator.plan.records import SecretContent
from moleport_operator.plan.secret import TOKEN_ID, claim_labels
from moleport_operator.resources import FINALIZER, Kind, TunnelToken, read_token
from moleport_operator.resources import TOKENS as OUR_TOKENS


class Memory:
    """What the ports remember of their own writes."""

    def __init__(self) -> None:
        self.versions: list[str] = []

    def __call__(self, _: Kind, body: Mapping[str, Any]) -> None:
        self.versions.append(body["metadata"]["resourceVersion"])


def made(api: KubeApi, **fields: Any) -> TunnelToken:
    return read_token(api.create(TOKENS, {"metadata": {"name": "shop"}} | fields))


def ports(kube: Kube, memory: Memory | None = None) -> KubeCluster:
    return KubeCluster(kube, remember=memory or Memory())


def content_of(token: TunnelToken, *, is_owned: bool) -> SecretContent:
    labels = claim_labels(token.meta.uid)
    return SecretContent(labels=labels, annotations={}, values={"token": "t"}, is_owned=is_owned)


async def test_the_finalizer_comes_and_goes_and_others_stay() -> None:
    memory = Memory()
    async with KubeApi() as api, open_client(api) as kube:
        body = {"metadata": {"name": "shop", "finalizers": ["a.b/c"]}}
        token = read_token(api.create(TOKENS, body))
        version = await ports(kube, memory).set_finalizer(OUR_TOKENS, token.meta, is_wanted=True)
        with_it = api.get(TOKENS, "shop")
        meta = replace(token.meta, resource_version=version, finalizers=("a.b/c", FINALIZER))
        await ports(kube).set_finalizer(OUR_TOKENS, meta, is_wanted=False)
        without = api.get(TOKENS, "shop")

    assert with_it is not None
    assert without is not None
    assert with_it["metadata"]["finalizers"] == ["a.b/c", FINALIZER]
    assert without["metadata"]["finalizers"] == ["a.b/c"]
    assert memory.versions == [version]


async def test_a_finalizer_on_what_changed_or_went_is_a_conflict() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        token = made(api)
        api.edit(TOKENS, "shop", spec={"suspend": True})
        with pytest.raises(Conflict):
            await ports(kube).set_finalizer(OUR_TOKENS, token.meta, is_wanted=True)
        api.delete(TOKENS, "shop")
        with pytest.raises(Conflict):
            await ports(kube).set_finalizer(OUR_TOKENS, token.meta, is_wanted=True)
        await ports(kube).set_finalizer(OUR_TOKENS, token.meta, is_wanted=False)


async def test_a_status_is_applied_whole_and_never_to_a_successor() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        token = made(api)
        await ports(kube).write_status(OUR_TOKENS, token.meta, {"revision": 1, "tokenID": "x"})
        await ports(kube).write_status(OUR_TOKENS, token.meta, {"revision": 2})
        whole = api.get(TOKENS, "shop")
        api.delete(TOKENS, "shop")
        await ports(kube).write_status(OUR_TOKENS, token.meta, {"revision": 3})
        made(api)
        await ports(kube).write_status(OUR_TOKENS, token.meta, {"revision": 3})
        successor = api.get(TOKENS, "shop")

    assert whole is not None
    assert whole["status"] == {"revision": 2}
    assert successor is not None
    assert "status" not in successor


async def test_a_secret_is_claimed_once_and_filled_only_as_it_was_seen() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        token = made(api)
        cluster = ports(kube)
        assert await cluster.read_secret("default", "shop") is None
        claimed = await cluster.claim_secret(token)
        with pytest.raises(Conflict):
            await cluster.claim_secret(token)
        content = content_of(token, is_owned=True)
        written = await cluster.write_secret(token, content, claimed)
        with pytest.raises(Conflict):
            await cluster.write_secret(token, replace(content, values={"token": "u"}), claimed)
        read = await cluster.read_secret("default", "shop")

    assert claimed.claimed_by == token.meta.uid
    assert written.content.values == {"token": "t"}
    assert read == written
    assert read is not None
    assert read.content.is_owned


async def test_a_secret_that_is_to_stay_loses_its_owner() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        token = made(api)
        cluster = ports(kube)
        claimed = await cluster.claim_secret(token)
        content = content_of(token, is_owned=False)

        written = await cluster.write_secret(token, content, claimed)

        api.delete(TOKENS, "shop")
        kept = api.get(SECRETS, "shop")

    assert not written.content.is_owned
    assert kept is not None


async def test_what_is_no_text_in_a_secret_is_read_as_nothing() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        data = {"token": base64.b64encode(b"\xff").decode(), "uri": "%"}
        metadata = {"name": "shop", "labels": {TOKEN_ID: "x"}}
        api.create(SECRETS, {"metadata": metadata, "data": data})

        read = await ports(kube).read_secret("default", "shop")

    assert read is not None
    assert read.content.values == {"token": "", "uri": ""}
