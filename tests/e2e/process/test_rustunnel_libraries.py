"""A rustunnel client made of the stock client's own libraries gets along with the server.

The other tests of the family use a double in Python with a yamux of its own. This client shares nothing
with it: it is a program in Rust (`bench/rustunnel_client`) on tokio, tungstenite, rustls and the yamux
crate, whose limits and violations are those that stock clients have.
"""

import asyncio
import hashlib
import json
import signal
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

import pytest

from helpers.doubles.process import start_rust_rustunnel
from helpers.origins import PATTERN, RawOrigin, WebOrigin, pattern_hash
from helpers.site import Site
from helpers.visits import Answer, Load, Visitor

HOST = "shop.localhost"
MIB = 1024 * 1024
STEP_SECONDS = 20.0
MOST_GROWTH_BYTES = 32 * MIB


async def visit(site: Site, path: str) -> Answer:
    async with await Visitor.connect(site.http_port) as visitor:
        return await visitor.get(HOST, path)


@pytest.mark.timeout(120)
async def test_a_thousand_requests_and_bursts_of_aborts_leave_its_connection_alive(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_rust_rustunnel(stack, site, "http", "shop", origin.port)
    assert (await client.wait_event("tunnel_opened"))["url"] == f"http://{HOST}:{site.http_port}"

    for _ in range(5):
        visitors = [await Visitor.connect(site.http_port) for _ in range(300)]
        for visitor in visitors:
            visitor.send(f"GET /gated HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        for visitor in visitors:
            visitor.writer.transport.abort()
        for visitor in visitors:
            await visitor.aclose()
    before = (await site.api("GET", "/api/tunnels"))[0]["request_count"]
    async with asyncio.TaskGroup() as visits:
        running = [visits.create_task(visit(site, "/gated")) for _ in range(1000)]
        async with asyncio.timeout(STEP_SECONDS):
            while (await site.api("GET", "/api/tunnels"))[0]["request_count"] < before + 1000:
                await asyncio.sleep(0.05)
        origin.gate.set()

    assert {task.result().status for task in running} == {200}
    assert client.events("lost") == []


@pytest.mark.parametrize("size", [100, 20_000])
async def test_its_answers_do_not_wait_for_delayed_acknowledgements(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, size: int
) -> None:
    await site.start_server()
    client = await start_rust_rustunnel(stack, site, "http", "shop", origin.port)
    await client.wait_event("tunnel_opened")
    loop = asyncio.get_running_loop()

    async with await Visitor.connect(site.http_port) as visitor:
        seconds = []
        for _ in range(60):
            began = loop.time()
            assert (await visitor.get(HOST, f"/size/{size}")).status == 200
            seconds.append(loop.time() - began)

    # The kernel would wait 40 ms before each but the first few; a busy machine makes some slow as well.
    assert sorted(seconds[20:])[4] < 0.03


@pytest.mark.parametrize("mebibytes", [32, pytest.param(1024, marks=pytest.mark.load)])
@pytest.mark.timeout(400)
async def test_it_carries_bodies_both_ways_and_comes_back_to_a_restarted_server(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, mebibytes: int
) -> None:
    await site.start_server("server.drain_delay_seconds=0")
    client = await start_rust_rustunnel(stack, site, "http", "shop", origin.port)
    await client.wait_event("tunnel_opened")
    assert (await visit(site, "/")).status == 200
    before = site.server.resident_bytes
    size = mebibytes * MIB
    path = site.directory / "upload"
    with path.open("wb") as upload:
        for _ in range(size // len(PATTERN)):
            upload.write(PATTERN)

    copy = site.directory / "download"
    async with asyncio.TaskGroup() as both:
        downloading = both.create_task(site.curl(HOST, f"/size/{size}", "-o", copy))
        uploading = both.create_task(site.curl(HOST, "/hash", "-T", path))
    down, up = downloading.result(), uploading.result()

    assert (down.exit_code, up.exit_code) == (0, 0)
    with copy.open("rb") as download:
        assert hashlib.file_digest(download, "sha256").hexdigest() == pattern_hash(size)
    assert json.loads(up.out) == {"sha256": pattern_hash(size), "bytes": size}
    assert site.server.peak_resident_bytes - before < MOST_GROWTH_BYTES

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        for is_in_order in (False, True):
            seen = len(client.lines)
            if is_in_order:
                site.server.send_signal(signal.SIGTERM)
                assert await site.server.wait_exit() == 0
            else:
                await site.server.kill()
            await site.start_server("server.drain_delay_seconds=0")
            ready = datetime.now(UTC)
            await client.wait_event("tunnel_opened", since=seen)
            await load.wait_successes(200)
            # Whoever came while it was away waited for it.
            assert load.failures(since=ready) == []
    [session] = await site.api("GET", "/api/sessions")
    await site.api("DELETE", f"/api/sessions/{session['session_id']}")

    # A close frame and an orderly end behind it: it stays away.
    assert await client.wait_exit() == 0


async def test_its_tcp_tunnel_keeps_the_other_direction_of_a_half_close_and_tells_refusals(
    site: Site, stack: AsyncExitStack
) -> None:
    async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = await reader.read()
        writer.write(hashlib.sha256(content).hexdigest().encode())

    await site.start_server()
    async with RawOrigin(at_the_end) as service:
        client = await start_rust_rustunnel(stack, site, "tcp", "-", service.port)
        port = int((await client.wait_event("tunnel_opened"))["url"].rpartition(":")[2])
        async with await Visitor.connect(port) as visitor:
            visitor.send(PATTERN * 16)
            visitor.writer.write_eof()
            answer = await visitor.read_to_end()
    assert answer.decode() == hashlib.sha256(PATTERN * 16).hexdigest()

    # Its service is gone: the visitor is not left waiting, and no stream stays. The reset may be there
    # before the visitor has looked whether it is connected.
    with suppress(ConnectionError):
        async with await Visitor.connect(port) as visitor:
            assert await visitor.read_to_end() == b""
    assert (await site.api("GET", "/api/sessions"))[0]["open_streams"] == 0
