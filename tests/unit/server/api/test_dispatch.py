import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from helpers.api import Api, ApiWorld
from moleport_server.api.authentication import Gate
from moleport_server.api.dispatch import bind
from moleport_server.api.routing import Access, Call, Route
from moleport_server.errors import StoreError, StoreFull

LABEL = "Failed to deserialize the JSON body into the target type: "
SYNTAX = "Failed to parse the request body as JSON: "


@pytest.mark.parametrize(
    ("body", "kind", "status", "text"),
    [
        (b"{}", None, 415, "Expected request with `Content-Type: application/json`"),
        (b"{}", "text/plain", 415, "Expected request with `Content-Type: application/json`"),
        (b"{}", "text/json", 415, "Expected request with `Content-Type: application/json`"),
        (b"", "application/json", 400, SYNTAX),
        (b"{", "application/json", 400, SYNTAX),
        (b'{"label":1,', "application/json", 400, SYNTAX),
        (b'{"label":"\xff"}', "application/json", 400, SYNTAX),
        (b'{"label":"\\ud800"}', "application/json", 400, SYNTAX),
        (b"[" * 60_000, "application/json", 400, SYNTAX),
        (b"{}", "application/json", 422, LABEL),
        (b"[]", "application/json", 422, LABEL),
        (b'{"label":null}', "application/json", 422, LABEL),
        (b'{"label":7}', "application/json", 422, LABEL),
        (b'{"label":"a","scope":[]}', "application/json", 422, LABEL),
        (b'{"label":"' + b"a" * 256 + b'"}', "application/json", 422, LABEL),
        (b" " * 65_537, "application/json", 413, "the body is larger than 65536 bytes"),
        (b'{"label":"a","scope":"a b"}', "application/json", 400, "scope pattern 'a b': "),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_body_is_refused_with_the_reason(
    api: Api, body: bytes, kind: str | None, status: int, text: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}

    answer = await api.post(
        "/api/tokens", data=body, headers=headers, skip_auto_headers=("Content-Type",)
    )

    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert answer.json["error"].startswith(text)
    assert len(answer.json["error"]) > len(text) or not text.endswith(": ")
    assert (await api.get("/api/tokens")).json == []


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge+json"])
async def test_json_has_several_media_types(api: Api, kind: str) -> None:
    answer = await api.post("/api/tokens", data=b'{"label":""}', headers={"Content-Type": kind})

    assert answer.status == 201


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=abc", "limit=", "limit=1&limit=2", "active=yes", "active=", "offset=-1"],
)
async def test_a_bad_query_is_refused_with_the_reason(api: Api, query: str) -> None:
    answer = await api.get(f"/api/history?{query}")

    assert answer.status == 400
    assert answer.json["error"].startswith("Failed to deserialize query string: ")


@pytest.mark.parametrize(
    "query", ["x=1", "x=1&x=2", "limit=0", "limit=99999999999999999999999&offset=99999999999999999"]
)
async def test_an_odd_query_is_served(api: Api, query: str) -> None:
    assert (await api.get(f"/api/history?{query}")).status == 200


async def _fail(error: BaseException, *, deadline: float = 5) -> tuple[int, Any]:
    async def handle(_call: Call[Any, Any]) -> None:
        if isinstance(error, TimeoutError):
            await asyncio.Event().wait()
        raise error

    route = Route(
        method="GET",
        path="/x",
        operation="x",
        summary="x",
        handler=handle,
        family="x",
        access=Access.PUBLIC,
        deadline_seconds=deadline,
    )
    app = web.Application()
    gate = Gate(ApiWorld().authenticator, tokens_are_admin=False)
    app.router.add_get("/x", bind(route, gate, lambda *_: None))
    app.router.add_get("/y", bind(replace(route, is_extension=True), gate, lambda *_: None))
    async with TestClient(TestServer(app)) as client, client.get("/x") as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("error", "status", "text", "level"),
    [
        (StoreError("driver text"), 500, "store unavailable", logging.WARNING),
        (StoreFull("driver text"), 507, "store is full", logging.WARNING),
        (TimeoutError(), 504, "the call took too long", logging.WARNING),
        (ValueError("driver text"), 500, "internal error", logging.ERROR),
    ],
    ids=["store", "full", "timeout", "fault"],
)
async def test_a_failure_of_ours_is_logged_and_not_told(
    error: Exception, status: int, text: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await _fail(error, deadline=0.01 if isinstance(error, TimeoutError) else 5)

    assert answer == (status, {"error": text})
    assert [record.levelno for record in caplog.records] == [level]
