import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from helpers.clock import FakeClock
from helpers.kube_api import LEASES, KubeApi
from helpers.kube_client import open_client
from moleport_operator import lease as module
from moleport_operator.clock import SystemClock
from moleport_operator.lease import DURATION_SECONDS, LeaseLost, hold_lease

NAME = "moleport/operator"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.1)


def holder(api: KubeApi) -> tuple[str, int]:
    lease = api.get(LEASES, "operator", "moleport")
    assert lease is not None
    return lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]


async def test_without_a_lease_nobody_is_asked() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        async with hold_lease(None, kube, SystemClock(), "one", asyncio.Event()) as lost:
            assert lost is None

        assert not api.calls


async def test_a_holder_that_ends_lets_go_and_the_next_takes_over() -> None:
    async with KubeApi() as api, open_client(api) as kube, asyncio.timeout(10):
        stack = AsyncExitStack()
        await stack.enter_async_context(
            hold_lease(NAME, kube, SystemClock(), "one", asyncio.Event())
        )
        assert holder(api) == ("one", 0)

        async def second() -> None:
            async with hold_lease(NAME, kube, SystemClock(), "two", asyncio.Event()):
                assert holder(api) == ("two", 1)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(second())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await stack.aclose()


async def test_a_lease_that_is_not_renewed_is_taken_by_our_own_clock() -> None:
    clock = FakeClock()
    async with KubeApi() as api, open_client(api) as kube, asyncio.timeout(10):
        spec = {
            "holderIdentity": "dead",
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": "2199-01-01T00:00:00.000000Z",
            "leaseTransitions": 4,
        }
        metadata = {"name": "operator", "namespace": "moleport"}
        api.create(LEASES, {"metadata": metadata, "spec": spec})

        async def take() -> None:
            async with hold_lease(NAME, kube, clock, "one", asyncio.Event()):
                assert holder(api) == ("one", 5)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(take())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            clock.advance(DURATION_SECONDS + 1)


async def test_a_lease_that_cannot_be_renewed_is_lost() -> None:
    async def refuse(_: object) -> web.Response:
        return web.json_response({"message": "away"}, status=503)

    async with (
        KubeApi() as api,
        open_client(api) as kube,
        asyncio.timeout(10),
        hold_lease(NAME, kube, SystemClock(), "one", asyncio.Event()) as lost,
    ):
        assert lost is not None
        api.before = refuse
        with pytest.raises(LeaseLost):
            await lost


async def test_a_stop_ends_the_wait() -> None:
    stop = asyncio.Event()
    async with (
        KubeApi() as api,
        open_client(api) as kube,
        asyncio.timeout(10),
        hold_lease(NAME, kube, SystemClock(), "one", asyncio.Event()),
    ):
        stop.set()
        async with hold_lease(NAME, kube, SystemClock(), "two", stop):
            assert holder(api) == ("one", 0)
