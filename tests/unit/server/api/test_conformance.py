"""Every call, with whatever schemathesis thinks of, answers as the OpenAPI document says."""

import asyncio
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from helpers.api import ADMIN_SECRET, ApiWorld
from helpers.captures import make_capture
from moleport_server.api.application import ROUTES
from moleport_server.api.openapi import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]


# An event stream has no end to wait for; `test_events` reads it.
routes = ApiWorld().app[ROUTES]
schema = schemathesis.openapi.from_dict(document(routes, version="1.2.3")).exclude(
    operation_id="watchEvents"
)


async def _serve(urls: "queue.Queue[str]", stop: asyncio.Event) -> None:
    world = ApiWorld(wrong_tokens=1_000_000)
    tunnel = world.add_tunnel(world.add_session())
    for _ in range(3):
        world.captures.add(tunnel, make_capture(world.captures.ids, response_body=b"{}"))
    runner = web.AppRunner(world.app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        urls.put(f"http://{host}:{port}")
        await stop.wait()
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # A thread of its own, because schemathesis calls synchronously.
    loop, stop, urls = asyncio.new_event_loop(), asyncio.Event(), queue.Queue[str]()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(urls, stop),))
    thread.start()
    try:
        yield urls.get(timeout=10)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_calls_answer_as_described(case: schemathesis.Case[Any], url: str) -> None:
    case.call_and_validate(
        base_url=url,
        headers={"Authorization": f"Bearer {ADMIN_SECRET}"},
        checks=CHECKS,
        timeout=10,
    )
