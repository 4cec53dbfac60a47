"""Much of everything: ten thousand requests, a gibibyte each way, and little memory for it."""

import asyncio
import contextlib
import hashlib
import json

import pytest

from helpers.origins import PATTERN, RawOrigin, WebOrigin, pattern_hash
from helpers.processes import Agent
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
MIB = 1024 * 1024
GIB = 1024 * MIB
MOST_GROWTH_BYTES = 32 * MIB
IDLE_SERVER_BYTES = 80 * MIB
IDLE_AGENT_BYTES = 50 * MIB
TRANSFER_SECONDS = 120.0


async def start_shop(site: Site, origin: WebOrigin) -> Agent:
    await site.start_server()
    return await site.start_agent("http", str(origin.port), "--name", "shop", "--quiet")


async def visit(site: Site, count: int) -> list[int]:
    async with await Visitor.connect(site.http_port) as visitor:
        return [(await visitor.get(HOST)).status for _ in range(count)]


async def visit_all(site: Site, *, connections: int, each: int) -> list[int]:
    async with asyncio.TaskGroup() as visits:
        running = [visits.create_task(visit(site, each)) for _ in range(connections)]
    return [status for one in running for status in one.result()]


async def test_idle_processes_are_small(site: Site, origin: WebOrigin) -> None:
    agent = await start_shop(site, origin)
    assert (await site.curl(HOST, "/")).exit_code == 0

    assert site.server.resident_bytes < IDLE_SERVER_BYTES
    assert agent.resident_bytes < IDLE_AGENT_BYTES


@pytest.mark.timeout(180)
async def test_ten_thousand_requests_over_64_connections_make_no_error(
    site: Site, origin: WebOrigin
) -> None:
    agent = await start_shop(site, origin)
    # Captures fill their ring first, so that only growth without a bound is seen.
    await visit_all(site, connections=64, each=10)
    server_before, agent_before = site.server.resident_bytes, agent.resident_bytes

    statuses = await visit_all(site, connections=64, each=157)

    assert len(statuses) == 64 * 157
    assert set(statuses) == {200}
    assert site.server.resident_bytes - server_before < MOST_GROWTH_BYTES
    assert agent.resident_bytes - agent_before < MOST_GROWTH_BYTES


@pytest.mark.load
@pytest.mark.timeout(300)
async def test_a_gibibyte_down_and_up_through_http_is_identical_and_costs_no_memory(
    site: Site, origin: WebOrigin
) -> None:
    agent = await start_shop(site, origin)
    await site.curl(HOST, "/")
    server_before, agent_before = site.server.resident_bytes, agent.resident_bytes

    assert await download_hash(site, GIB) == pattern_hash(GIB)
    path = site.directory / "upload"
    with path.open("wb") as upload:
        for _ in range(GIB // len(PATTERN)):
            upload.write(PATTERN)
    page = await curl_for_long(site, "/hash", "-T", str(path))

    assert json.loads(page) == {"sha256": pattern_hash(GIB), "bytes": GIB}
    assert site.server.peak_resident_bytes - server_before < MOST_GROWTH_BYTES
    assert agent.peak_resident_bytes - agent_before < MOST_GROWTH_BYTES


async def curl_for_long(site: Site, path: str, *options: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--fail", "--noproxy", "*", "-H", f"Host: {HOST}", *options),
        f"http://127.0.0.1:{site.http_port}{path}",
        stdout=asyncio.subprocess.PIPE,
        env=site.environ,
    )
    try:
        async with asyncio.timeout(TRANSFER_SECONDS):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    return out


async def download_hash(site: Site, size: int) -> str:
    async with await Visitor.connect(site.http_port) as visitor, asyncio.timeout(TRANSFER_SECONDS):
        visitor.send(f"GET /size/{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await visitor.reader.readuntil(b"\r\n\r\n")
        return await hash_of(visitor.reader, size)


async def hash_of(reader: asyncio.StreamReader, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        piece = await reader.read(min(size, MIB))
        assert piece, f"{size} bytes are missing"
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


@pytest.mark.load
@pytest.mark.timeout(300)
async def test_a_gibibyte_both_ways_through_tcp_is_identical_and_costs_no_memory(
    site: Site,
) -> None:
    uploaded: asyncio.Queue[str] = asyncio.Queue()

    async def send_pattern(writer: asyncio.StreamWriter) -> None:
        for _ in range(GIB // len(PATTERN)):
            writer.write(PATTERN)
            await writer.drain()
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(send_pattern(writer))
            uploaded.put_nowait(await hash_of(reader, GIB))

    await site.start_server()
    async with RawOrigin(serve) as service:
        await site.start_agent("tcp", str(service.port), "--port", str(site.tcp_port))
        before = site.server.resident_bytes
        async with (
            await Visitor.connect(site.tcp_port) as visitor,
            asyncio.timeout(TRANSFER_SECONDS),
            asyncio.TaskGroup() as both,
        ):
            both.create_task(send_pattern(visitor.writer))
            downloaded = await hash_of(visitor.reader, GIB)
        assert await uploaded.get() == pattern_hash(GIB)

    assert downloaded == pattern_hash(GIB)
    assert site.server.peak_resident_bytes - before < MOST_GROWTH_BYTES
