"""Visitors that stop reading cost one window each and delay nobody."""

import asyncio
import contextlib
import resource
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from helpers.origins import WebOrigin
from helpers.site import Site
from helpers.visits import Visitor, raw_connection

HOST = "shop.localhost"
WINDOW_BYTES = 256 * 1024
OVERHEAD_BYTES = 64 * 1024
"""Besides its window a stalled visitor has a write buffer and objects in the server."""
STEP_SECONDS = 30.0
DELAY_SECONDS = 0.25
"""Generous for two busy cores; a visitor that waits for a stalled one waits for ever."""
MIB = 1024 * 1024


@pytest.fixture
async def shop(site: Site, origin: WebOrigin) -> Site:
    await site.start_server()
    await site.start_agent("http", str(origin.port), "--name", "shop", "--quiet")
    return site


@contextlib.contextmanager
def stalled(port: int, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Ask for something big and never read it."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        visitors = []
        for _ in range(count):
            visitor = stack.enter_context(raw_connection(port, receive_bytes=4096))
            visitor.send(request)
            visitors.append(visitor)
        yield visitors


async def wait_for_requests(origin: WebOrigin, request: str, count: int) -> None:
    async with asyncio.timeout(STEP_SECONDS):
        while origin.seen[request] < count:
            await asyncio.sleep(0.05)


async def wait_for_still_bytes(site: Site) -> None:
    """Wait until no more bytes flow: every buffer on the way is full."""
    before = -1
    async with asyncio.timeout(STEP_SECONDS):
        while (now := site.server.resident_bytes // MIB) != before:
            before = now
            await asyncio.sleep(1)


async def small_request_seconds(site: Site, count: int) -> list[float]:
    seconds = []
    async with await Visitor.connect(site.http_port) as visitor:
        for _ in range(count):
            began = time.perf_counter()
            assert (await visitor.get(HOST)).status == 200
            seconds.append(time.perf_counter() - began)
    return seconds


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[-1]


async def test_stalled_visitors_cost_one_window_each_and_delay_nobody(
    shop: Site, origin: WebOrigin
) -> None:
    visitors = 100
    alone = await small_request_seconds(shop, 300)
    before = shop.server.resident_bytes

    with stalled(shop.http_port, "/endless", visitors):
        await wait_for_requests(origin, "GET /endless", visitors)
        await wait_for_still_bytes(shop)
        grown = shop.server.resident_bytes - before
        seconds = await small_request_seconds(shop, 500)

    assert grown < visitors * (WINDOW_BYTES + OVERHEAD_BYTES + 128 * 1024)
    assert p99(seconds) < p99(alone) + DELAY_SECONDS
    async with asyncio.timeout(STEP_SECONDS):
        while origin.aborted["/endless"] < visitors:
            await asyncio.sleep(0.05)


async def test_a_download_at_full_speed_does_not_starve_small_requests(
    shop: Site, origin: WebOrigin
) -> None:
    alone = await small_request_seconds(shop, 300)
    async with downloads(shop, 2) as received:
        await wait_for_requests(origin, "GET /endless", 2)
        seconds = await small_request_seconds(shop, 300)
        assert sum(received) > MIB

    assert p99(seconds) < p99(alone) + DELAY_SECONDS


@contextlib.asynccontextmanager
async def downloads(site: Site, count: int) -> AsyncIterator[list[int]]:
    """Download for ever, in processes of their own, as long as the context lasts."""
    received: list[int] = []

    async def count_bytes(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(MIB):
            received.append(len(piece))

    url = f"http://127.0.0.1:{site.http_port}/endless"
    async with asyncio.TaskGroup() as readers:
        running = []
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                *("curl", "--silent", "--no-buffer", "--noproxy", "*", "-H", f"Host: {HOST}", url),
                stdout=asyncio.subprocess.PIPE,
                env=site.environ,
            )
            running.append(process)
            readers.create_task(count_bytes(process))
        try:
            yield received
        finally:
            for process in running:
                process.kill()
                await process.wait()


@pytest.mark.load
@pytest.mark.timeout(240)
async def test_thousands_of_stalled_visitors_stay_within_the_receive_budget(
    site: Site, origin: WebOrigin
) -> None:
    visitors, budget = 5_000, 128 * MIB
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4 * visitors:
        visitors = (most - 500) // 3
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        await site.start_server(
            f"flow.receive_budget_bytes={budget}",
            f"limits.connections_per_tunnel={visitors + 100}",
            # Captures of answers in flight have a bound of their own; here it is about windows.
            "capture.body_bytes=0",
        )
        await site.start_agent("http", str(origin.port), "--name", "shop", "--quiet")
        await small_request_seconds(site, 100)
        before = site.server.resident_bytes
        with stalled(site.http_port, f"/size/{WINDOW_BYTES * 2}", visitors):
            await wait_for_still_bytes(site)
            grown = site.server.resident_bytes - before
            # At the budget the server says so at once, and no request hangs.
            async with await Visitor.connect(site.http_port) as visitor:
                answer = await visitor.get(HOST)
        assert answer.status in {200, 503}
        # The budget, and what a connection costs by itself.
        assert grown < budget + visitors * OVERHEAD_BYTES
        async with asyncio.timeout(STEP_SECONDS):
            while not await is_served(site):
                await asyncio.sleep(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


async def is_served(site: Site) -> bool:
    async with await Visitor.connect(site.http_port) as visitor:
        return (await visitor.get(HOST)).status == 200


async def test_a_stream_serves_the_next_visitor_whole_after_one_who_did_not_read(
    shop: Site, origin: WebOrigin
) -> None:
    # Within one window: the answer is complete for the server before the visitor has read it.
    with stalled(shop.http_port, f"/size/{WINDOW_BYTES - 4096}", 8):
        async with asyncio.timeout(STEP_SECONDS):
            while 'code="2xx",protocol="http"} 8.0' not in await shop.metrics():
                await asyncio.sleep(0.05)
        for _ in range(8):
            page = await shop.curl(HOST, f"/size/{8 * MIB}", "--max-time", "20", "-o", "/dev/null")
            assert page.exit_code == 0, page.err


async def test_a_pipeline_of_a_visitor_who_does_not_read_is_not_kept_in_memory(
    shop: Site, origin: WebOrigin
) -> None:
    await small_request_seconds(shop, 100)
    before = shop.server.resident_bytes
    with contextlib.closing(raw_connection(shop.http_port, receive_bytes=4096)) as visitor:
        for path in (f"/size/{MIB}", f"/size/{256 * MIB}", "/endless"):
            visitor.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await wait_for_requests(origin, f"GET /size/{MIB}", 1)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(STEP_SECONDS):
            # Read into the second answer, then stop again.
            received = 0
            while received < MIB:
                received += len(await loop.sock_recv(visitor, 65_536))
        await wait_for_still_bytes(shop)

        assert shop.server.resident_bytes - before < 16 * MIB
