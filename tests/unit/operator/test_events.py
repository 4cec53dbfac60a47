import pytest
from aiohttp import web

from helpers.clock import FakeClock
from helpers.kube_api import EVENTS, KubeApi
from helpers.kube_client import open_client
from helpers.operator_records import token
from moleport_operator import events as module
from moleport_operator.events import SERIES_SECONDS, EventRecorder
from moleport_operator.kube import Kube
from moleport_operator.plan.status import Transition
from moleport_operator.resources import CLUSTER_POLICIES, TOKENS

ISSUED = Transition("Issued", "it is there", is_warning=False)
EXPIRED = Transition("Expired", "it is over" + "!" * 2000, is_warning=True)


def recorder(kube: Kube, clock: FakeClock) -> EventRecorder:
    return EventRecorder(kube, clock, identity="pod-1")


async def test_an_event_says_what_about_whom() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        await recorder(kube, FakeClock()).emit(TOKENS, token().meta, EXPIRED)
        (event,) = api.bodies(EVENTS)

    assert (event["type"], event["reason"], event["reportingInstance"]) == (
        "Warning",
        "Expired",
        "pod-1",
    )
    assert event["regarding"]["name"] == "shop"
    assert event["regarding"]["uid"] == token().meta.uid
    assert len(event["note"]) <= 1024


async def test_what_repeats_counts_up_and_what_comes_late_is_new() -> None:
    clock = FakeClock()
    async with KubeApi() as api, open_client(api) as kube:
        events = recorder(kube, clock)
        for pause in (1, 1, SERIES_SECONDS - 1):
            await events.emit(TOKENS, token().meta, ISSUED)
            clock.advance(pause)
        await events.emit(TOKENS, token().meta, EXPIRED)
        clock.advance(SERIES_SECONDS)
        await events.emit(TOKENS, token().meta, ISSUED)
        found = sorted(
            (event["reason"], event.get("series", {}).get("count", 1))
            for event in api.bodies(EVENTS)
        )

    assert found == [("Expired", 1), ("Issued", 1), ("Issued", 3)]


async def test_an_event_of_the_cluster_goes_where_those_of_nodes_go() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        meta = token("wide", namespace="").meta
        await recorder(kube, FakeClock()).emit(CLUSTER_POLICIES, meta, ISSUED)
        (event,) = api.bodies(EVENTS)

    assert event["metadata"]["namespace"] == "default"


async def test_an_event_that_cannot_be_written_is_no_error_and_starts_anew() -> None:
    async def refuse(_: object) -> web.Response:
        return web.json_response({"message": "no"}, status=403)

    async with KubeApi() as api, open_client(api) as kube:
        clock = FakeClock()
        events = recorder(kube, clock)
        await events.emit(TOKENS, token().meta, ISSUED)
        api.before = refuse
        await events.emit(TOKENS, token().meta, ISSUED)
        api.before = nothing
        clock.advance(1)
        await events.emit(TOKENS, token().meta, ISSUED)

        assert len(list(api.bodies(EVENTS))) == 2


async def nothing(_: object) -> None:
    return None


async def test_what_is_remembered_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SERIES", 2)
    async with KubeApi() as api, open_client(api) as kube:
        clock = FakeClock()
        events = recorder(kube, clock)
        for name in ("a", "b", "c", "a"):
            clock.advance(1)
            await events.emit(TOKENS, token(name).meta, ISSUED)

        names = [event["regarding"]["name"] for event in api.bodies(EVENTS)]

    assert sorted(names) == ["a", "a", "b", "c"]
