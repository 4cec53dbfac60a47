from pathlib import Path
from typing import Any

import kopf
import pytest
from aiohttp import web

from helpers.clock import FakeClock
from helpers.kube_api import TOKENS, KubeApi
from helpers.kube_client import open_client
from moleport_operator import kube as module
from moleport_operator.errors import (
    ClusterUnavailable,
    ConfigError,
    Conflict,
    Denied,
    InvalidResource,
)
from moleport_operator.kube import (
    LOGIN_SECONDS,
    PAGE,
    Kube,
    NotFound,
    authorization,
    collection,
    identity_body,
    item,
    login,
    make_session,
)
from moleport_operator.resources import CLUSTER_POLICIES
from moleport_operator.resources import TOKENS as OUR_TOKENS

SHOP = item(OUR_TOKENS, "default", "shop")


async def test_a_list_of_many_pages_is_whole_and_of_one_moment() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        for number in range(PAGE + 5):
            api.create(TOKENS, {"metadata": {"name": f"t-{number}"}})

        items, version = await kube.list(collection(OUR_TOKENS))

    assert len({body["metadata"]["name"] for body in items}) == PAGE + 5
    assert int(version) >= max(int(body["metadata"]["resourceVersion"]) for body in items)
    assert api.calls["list/tunneltokens"] == 2


async def test_an_apply_takes_away_what_we_no_longer_say_and_keeps_what_others_say() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        api.create(TOKENS, {"metadata": {"name": "shop", "labels": {"team": "a"}}})
        for labels in ({"ours": "1"}, {}):
            body = identity_body(OUR_TOKENS, "default", "shop")
            body["metadata"]["labels"] = labels
            answered = await kube.apply(SHOP, body)

    assert answered["metadata"]["labels"] == {"team": "a"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, NotFound),
        (409, Conflict),
        (410, Conflict),
        (400, InvalidResource),
        (422, InvalidResource),
        (403, Denied),
        (401, ClusterUnavailable),
        (429, ClusterUnavailable),
        (500, ClusterUnavailable),
        (504, ClusterUnavailable),
    ],
)
async def test_each_status_is_the_error_of_what_can_be_done(
    status: int, error: type[Exception]
) -> None:
    counted: list[tuple[Any, ...]] = []

    async def refuse(_: object) -> web.Response:
        return web.json_response(
            {"message": "because"}, status=status, headers={"Retry-After": "7"}
        )

    async with KubeApi() as api, open_client(api, lambda *call: counted.append(call)) as kube:
        api.before = refuse
        with pytest.raises(error) as caught:
            await kube.get(SHOP)

    if isinstance(caught.value, ClusterUnavailable):
        assert caught.value.retry_after == 7
    assert [call[:2] for call in counted] == [(str(status), "GET")]


async def test_an_answer_that_never_comes_is_an_unavailable_cluster() -> None:
    counted: list[tuple[Any, ...]] = []
    async with KubeApi() as api:
        pass

    async with open_client(api, lambda *call: counted.append(call)) as kube:
        with pytest.raises(ClusterUnavailable):
            await kube.get(SHOP)

    assert [call[:2] for call in counted] == [("<error>", "GET")]


async def test_the_token_of_a_service_account_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/x", note)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    tokens = iter(["second"])

    def log_in() -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=server, token=next(tokens))

    monkeypatch.setattr(module, "login", log_in)
    info, clock = kopf.ConnectionInfo(server=server, token="first"), FakeClock()
    async with make_session(info, lambda *_: None) as session:
        kube = Kube(session, info, clock)
        await kube.get("/x")
        clock.advance(LOGIN_SECONDS + 1)
        await kube.get("/x")
        await kube.get("/x")
    await runner.cleanup()

    assert seen == ["Bearer first", "Bearer second", "Bearer second"]


def test_passwords_are_sent_where_there_is_no_token() -> None:
    info = kopf.ConnectionInfo(server="https://x", username="ann", password="b")

    assert authorization(info) == {"Authorization": "Basic YW5uOmI="}
    assert authorization(kopf.ConnectionInfo(server="https://x")) == {}


def test_a_kubeconfig_is_found_and_its_absence_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(KubeApi().write_kubeconfig(tmp_path / "config")))
    assert login().token == "anybody"

    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="KUBECONFIG"):
        login()


def test_paths_know_what_has_a_namespace() -> None:
    assert SHOP == "/apis/moleport.dev/v1alpha1/namespaces/default/tunneltokens/shop"
    assert item(CLUSTER_POLICIES, "default", "x") == (
        "/apis/moleport.dev/v1alpha1/clustertunnelpolicies/x"
    )


async def test_calls_that_begin_are_told_before_their_answer() -> None:
    began: list[str] = []
    async with KubeApi() as api:
        info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{api.port}")
        async with (
            make_session(info, lambda *_: None, began=began.append) as session,
            session.get(f"{info.server}/version") as answer,
        ):
            assert answer.status == 200

    assert began == ["/version"]
