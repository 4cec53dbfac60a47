import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from helpers.api import ADMIN_SECRET, Api, ApiWorld
from moleport_server.api.application import EVENT_STREAMS
from moleport_server.api.authentication import Gate
from moleport_server.api.dispatch import bind
from moleport_server.api.events import MOST_STREAMS, EventRoutes, EventStreams
from moleport_server.errors import QuotaExceeded, StoreError
from moleport_server.registry.events import KEPT_EVENTS, WATCHER_BACKLOG

TUNNEL = "7d0c3c42-6cb5-4a86-a2cf-0d0a9f0a0001"


@dataclass
class Reader:
    """Reads blocks of an event stream, each with a deadline."""

    response: ClientResponse

    async def block(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    return fields
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name or "comment"] = value.removeprefix(": ")
        raise EOFError

    async def event(self) -> tuple[str, dict[str, Any]]:
        while True:
            block = await self.block()
            if "data" in block:
                return block["event"], json.loads(block["data"])

    async def rest(self) -> bytes:
        async with asyncio.timeout(20):
            return await self.response.content.read()


@contextlib.asynccontextmanager
async def watching(
    client: TestClient[web.Request, web.Application],
    path: str = "/api/events",
    *,
    secret: str = ADMIN_SECRET,
    last_id: str | None = None,
) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {secret}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    async with client.get(path, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        reader = Reader(response)
        assert "comment" in str(await reader.block())
        yield reader


def finish(world: ApiWorld, token_id: str | None = None, *, tunnel_id: str = TUNNEL) -> None:
    fields = {"tunnel_id": tunnel_id, "path": "/a\nb"}
    world.registry.events.publish("request.finished", token_id, fields)


async def test_a_stream_begins_at_once_and_tells_what_happens(world: ApiWorld, api: Api) -> None:
    async with watching(api.client) as reader:
        start = await reader.block()
        finish(world)
        block = await reader.block()

    run, _, number = block["id"].partition("-")
    assert start == {"retry": "1000", "id": f"{run}-0"}
    assert (block["event"], number) == ("request.finished", "1")
    assert json.loads(block["data"]) == {
        "at": "2025-06-15T15:06:40Z",
        "tunnel_id": TUNNEL,
        "path": "/a\nb",
    }


async def test_a_watcher_that_comes_back_gets_what_it_missed(world: ApiWorld, api: Api) -> None:
    async with watching(api.client) as reader:
        await reader.block()
        finish(world)
        first = await reader.block()
    finish(world, tunnel_id="missed")

    async with watching(api.client, last_id=first["id"]) as reader:
        kind, fields = await reader.event()

    assert (kind, fields["tunnel_id"]) == ("request.finished", "missed")


@pytest.mark.parametrize("last_id", ["abcd-1", "999", "0"], ids=["other run", "future", "begin"])
async def test_a_watcher_of_an_earlier_run_gets_everything(
    world: ApiWorld, api: Api, last_id: str
) -> None:
    finish(world, tunnel_id="first")

    async with watching(api.client, last_id=last_id) as reader:
        _, fields = await reader.event()

    assert fields["tunnel_id"] == "first"


async def test_a_watcher_learns_how_much_it_missed_for_good(world: ApiWorld, api: Api) -> None:
    for _ in range(KEPT_EVENTS + 5):
        finish(world)

    async with watching(api.client, last_id="2") as reader:
        assert await reader.event() == ("events.lost", {"count": 3})
        assert (await reader.event())[0] == "request.finished"


async def test_a_slow_watcher_learns_how_much_it_lost(world: ApiWorld, api: Api) -> None:
    async with watching(api.client) as reader:
        await reader.block()
        # Published within one turn of the loop, so that the stream cannot keep up.
        for _ in range(WATCHER_BACKLOG + 7):
            finish(world)
        assert await reader.event() == ("events.lost", {"count": 7})
        assert (await reader.event())[0] == "request.finished"


@pytest.mark.parametrize("text", ["x", "1-2-3", "-1", "abc-", "1e3"])
async def test_a_strange_last_id_is_refused(api: Api, text: str) -> None:
    answer = await api.get("/api/events", headers={"Last-Event-ID": text})

    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


async def test_a_filter_leaves_one_tunnel(world: ApiWorld, api: Api) -> None:
    async with watching(api.client, f"/api/events?tunnel={TUNNEL}") as reader:
        finish(world, tunnel_id="other")
        world.registry.events.publish("session.opened", None, {"session_id": "s"})
        finish(world)

        assert (await reader.event())[1]["tunnel_id"] == TUNNEL


async def test_a_token_sees_its_own_events(world: ApiWorld, api: Api) -> None:
    token = await world.add_token("s1")
    async with watching(api.client, secret="s1") as reader:
        finish(world, tunnel_id="of the admin")
        finish(world, "another", tunnel_id="foreign")
        finish(world, token.id)

        assert (await reader.event())[1]["tunnel_id"] == TUNNEL


async def test_the_end_of_the_server_ends_the_streams(world: ApiWorld, api: Api) -> None:
    async with watching(api.client) as reader:
        world.app[EVENT_STREAMS].close()
        assert (await reader.rest()).endswith(b"\n\n")
    async with watching(api.client) as reader:
        assert b"event:" not in await reader.rest()
    assert not world.registry.events.is_watched


async def test_shutting_the_application_down_ends_the_streams(world: ApiWorld, api: Api) -> None:
    async with watching(api.client) as reader:
        await world.app.shutdown()
        assert (await reader.rest()).endswith(b"\n\n")


@contextlib.asynccontextmanager
async def quick(world: ApiWorld) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    gate = Gate(world.authenticator, tokens_are_admin=False)
    family = EventRoutes(
        events=world.registry.events,
        gate=gate,
        streams=EventStreams(),
        run_id="ab",
        keepalive_seconds=0.02,
    )
    app = web.Application()
    for route in family.routes():
        app.router.add_get(route.path, bind(route, gate, lambda *_: None))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_silence_is_filled_and_loses_nothing(world: ApiWorld) -> None:
    async with quick(world) as client, watching(client) as reader:
        await reader.block()
        assert await reader.block() == {"comment": "keepalive"}
        finish(world)

        assert (await reader.event())[0] == "request.finished"


async def test_a_deleted_token_ends_its_streams(world: ApiWorld) -> None:
    token = await world.add_token("s1")
    async with quick(world) as client, watching(client, secret="s1") as reader:
        await world.store.delete_token(token.id)
        world.authenticator.forget(token.id)

        assert b"event:" not in await reader.rest()


async def test_a_store_that_is_down_ends_no_stream(
    world: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add_token("s1")

    async def fail(_secret: str, *, address: str) -> None:
        raise StoreError("down")

    async with quick(world) as client, watching(client, secret="s1") as reader:
        await reader.block()
        monkeypatch.setattr(world.authenticator, "authenticate", fail)
        for _ in range(3):
            assert await reader.block() == {"comment": "keepalive"}


async def test_streams_are_limited() -> None:
    streams = EventStreams()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_STREAMS):
            await stack.enter_async_context(streams.opened())

        with pytest.raises(QuotaExceeded):
            await stack.enter_async_context(streams.opened())
