"""The descriptor budget: at its end visitors are refused in words and everything else goes on."""

import asyncio
from contextlib import AsyncExitStack

from helpers.origins import WebOrigin
from helpers.processes import command
from helpers.site import Site
from helpers.visits import Truncated, Visitor

STEP_SECONDS = 15.0
HOST = "shop.localhost"


async def test_a_process_with_few_descriptors_refuses_visitors_and_survives(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    # A hard limit, as a container may have one: the server cannot raise it.
    limited = site.directory / "moleport-server"
    limited.write_text(f'#!/bin/sh\nulimit -n 320 && exec {command("moleport-server")} "$@"\n')
    limited.chmod(0o755)
    await site.start_server(program=limited)
    await site.start_agent("http", str(origin.port), "--name", "shop")
    visitors = [
        await stack.enter_async_context(await Visitor.connect(site.http_port)) for _ in range(300)
    ]

    answers = []
    async with asyncio.timeout(STEP_SECONDS):
        for visitor in visitors:
            visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            try:
                answers.append(await visitor.read_answer())
            except (Truncated, ConnectionError):
                continue  # one of many at the same moment: dropped
        # By hand, because libraries repeat a call that nobody heard: descriptors of visitors that were
        # dropped a moment ago are the first to be used again.
        for _ in range(20):
            async with await Visitor.connect(site.api_port) as caller:
                assert (await caller.get(HOST, "/api/v1/tunnel/health")).status == 200
        overview = await site.api("GET", "/api/v1/tunnel/tunnels")
        metrics = await site.metrics()

    statuses = {answer.status for answer in answers}
    assert statuses == {200, 503}
    assert {a.header("Retry-After") for a in answers if a.status == 503} == {"1"}
    assert overview["fdPermitsAvailable"] == 0
    assert "moleport_server_descriptors_available 0.0" in metrics
    assert "oo many open files" not in site.server.output

    for visitor in visitors:
        visitor.writer.transport.abort()
    async with asyncio.timeout(STEP_SECONDS):
        while (await site.curl(HOST, "/")).text != "hello ":
            await asyncio.sleep(0.1)
