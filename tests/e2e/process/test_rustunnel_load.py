"""Many requests, much data and rude ends through one stock rustunnel client.

Its library ends the connection at the 257th stream that it has not acknowledged and at the 513th that
is open, so the server has to keep below and queue. The client is a double (`helpers.doubles`).
"""

import asyncio
import hashlib
import json
import socket
import struct
from contextlib import AsyncExitStack
from typing import Any

import pytest

from helpers.doubles.process import Double, start_rustunnel
from helpers.origins import PATTERN, RawOrigin, WebOrigin, pattern_hash
from helpers.site import Site
from helpers.visits import Answer, Truncated, Visitor, raw_connection

HOST = "shop.localhost"
MIB = 1024 * 1024
STEP_SECONDS = 20.0
MOST_GROWTH_BYTES = 32 * MIB
BREAKS: dict[str, bool | None] = {
    "text": False,
    "empty": False,
    "unknown-stream": False,
    "credit-overflow": False,
    "even-stream": False,
    "unasked-pong": False,
    "reset-streams": False,
    "close": True,
    "drop": True,
    "version": True,
    "type": True,
    "goaway": True,
    "odd-stream": True,
    "overrun": True,
    "huge-body": True,
    "half-frame+unknown-stream": True,
    "noise": True,
    "even-flood": None,
    "ping-flood": None,
}
"""What a client may do to its data channel, and whether that ends it; None: if it reads too slowly."""


async def start_shop(stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str) -> Double:
    await site.start_server()
    client = await start_rustunnel(
        stack, site, f"http:127.0.0.1:{origin.port}:shop", options=options
    )
    await client.wait_event("attached")
    return client


async def wait_for_streams(client: Double, count: int) -> dict[str, Any]:
    """Wait until the client has so many streams open."""
    async with asyncio.timeout(STEP_SECONDS):
        while (stats := await client.ask("stats", answer="stats"))["open_streams"] != count:
            await asyncio.sleep(0.05)
    return stats


async def read_to_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


async def visit(site: Site, path: str) -> Answer:
    async with await Visitor.connect(site.http_port) as visitor:
        return await visitor.get(HOST, path)


@pytest.mark.timeout(120)
async def test_a_thousand_requests_at_once_are_all_served_and_none_ends_the_mux(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    client = await start_shop(stack, site, origin)

    async with asyncio.TaskGroup() as visits:
        running = [visits.create_task(visit(site, "/gated")) for _ in range(1000)]
        async with asyncio.timeout(STEP_SECONDS):
            while (await site.api("GET", "/api/tunnels"))[0]["request_count"] < 1000:
                await asyncio.sleep(0.05)
        stats = await client.ask("stats", answer="stats")
        origin.gate.set()

    assert 200 < stats["open_streams"] < 256
    assert {task.result().status for task in running} == {200}
    assert client.violations == []
    assert len(client.events("attached")) == 1
    after = await client.ask("stats", answer="stats")
    assert after["waiting_announcements"] == 0
    # Whoever waited was served by a stream that had become idle.
    assert after["opened"] <= 256


async def test_streams_of_visitors_who_left_are_free_again(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    client = await start_shop(stack, site, origin)

    for _ in range(2):
        visitors = [await Visitor.connect(site.http_port) for _ in range(300)]
        for visitor in visitors:
            visitor.send(f"GET /gated HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await origin.arrived.acquire()
        for visitor in visitors:
            visitor.writer.transport.abort()
        stats = await wait_for_streams(client, 0)
        assert stats["waiting_streams"] == 0
        for visitor in visitors:
            await visitor.aclose()

    assert (await visit(site, "/")).status == 200
    # What was announced and reset before it was paired stays with the client; nothing else does.
    assert client.violations == []
    assert (await site.api("GET", "/api/sessions"))[0]["open_streams"] == 1


async def test_the_service_hears_of_a_visitor_who_left(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await start_shop(stack, site, origin)
    visitor = await Visitor.connect(site.http_port)
    visitor.send(f"GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    async with asyncio.timeout(STEP_SECONDS):
        await visitor.reader.readuntil(b"\r\n\r\n")
        visitor.writer.transport.abort()
        await origin.abort_seen.wait()

    await visitor.aclose()
    assert origin.aborted["/endless"] == 1


@pytest.mark.timeout(120)
async def test_a_reader_who_stops_costs_the_others_nothing(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await start_shop(stack, site, origin)
    before = site.server.resident_bytes
    stalled = [await Visitor.connect(site.http_port) for _ in range(8)]
    for visitor in stalled:
        visitor.send(f"GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await visitor.reader.readuntil(b"\r\n\r\n")
        assert isinstance(visitor.writer.transport, asyncio.Transport)
        visitor.writer.transport.pause_reading()

    for _ in range(50):
        assert (await visit(site, "/")).status == 200

    assert site.server.resident_bytes - before < MOST_GROWTH_BYTES
    for visitor in stalled:
        visitor.writer.transport.abort()
        await visitor.aclose()


async def test_small_answers_do_not_wait_for_delayed_acknowledgements(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await start_shop(stack, site, origin)
    loop = asyncio.get_running_loop()

    async with await Visitor.connect(site.http_port) as visitor:
        seconds = []
        for _ in range(60):
            began = loop.time()
            assert (await visitor.get(HOST)).status == 200
            seconds.append(loop.time() - began)

    # The kernel would wait 40 ms before each but the first few; a busy machine makes some slow as well.
    assert sorted(seconds[20:])[4] < 0.03


@pytest.mark.parametrize("mebibytes", [48, pytest.param(1024, marks=pytest.mark.load)])
@pytest.mark.timeout(400)
async def test_bodies_are_whole_both_ways_and_cost_no_memory(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, mebibytes: int
) -> None:
    client = await start_shop(stack, site, origin)
    assert (await visit(site, "/")).status == 200
    before = site.server.resident_bytes
    size = mebibytes * MIB
    path = site.directory / "upload"
    with path.open("wb") as upload:
        for _ in range(size // len(PATTERN)):
            upload.write(PATTERN)

    async with await Visitor.connect(site.http_port) as visitor:
        visitor.send(f"GET /size/{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await visitor.reader.readuntil(b"\r\n\r\n")
        digest = hashlib.sha256()
        left = size
        while left:
            data = await visitor.reader.read(MIB)
            assert data
            digest.update(data)
            left -= len(data)
    page = await site.curl(HOST, "/hash", "-T", path, "--max-time", "180")

    assert digest.hexdigest() == pattern_hash(size)
    assert json.loads(page.out) == {"sha256": pattern_hash(size), "bytes": size}
    assert site.server.peak_resident_bytes - before < MOST_GROWTH_BYTES
    assert client.violations == []


async def send_for_ever(visitor: Visitor) -> None:
    async with asyncio.timeout(STEP_SECONDS + 10):
        while True:
            visitor.send(PATTERN)
            await visitor.writer.drain()


async def test_a_service_that_hangs_up_while_it_is_sent_to_does_not_hold_the_visitor(
    site: Site, stack: AsyncExitStack
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.close()

    await site.start_server()
    async with RawOrigin(hang_up) as service:
        client = await start_rustunnel(stack, site, f"tcp:127.0.0.1:{service.port}")
        await client.wait_event("attached")
        port = client.events("registered")[0]["assigned_port"]
        async with await Visitor.connect(port) as visitor:
            with pytest.raises(ConnectionError):
                await send_for_ever(visitor)
        await wait_for_streams(client, 0)

    assert (await site.api("GET", "/api/sessions"))[0]["open_streams"] == 0


async def test_a_client_that_grants_nothing_fails_its_own_visitors_alone(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await start_shop(stack, site, origin, "--never-grant")
    async with await Visitor.connect(site.http_port) as uploader:
        uploader.send(
            f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10000000\r\n\r\n".encode()
            + PATTERN * 8
        )
        for _ in range(20):
            assert (await visit(site, "/")).status == 200


async def test_a_client_that_never_answers_is_not_given_more_than_it_can_hold(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    client = await start_shop(stack, site, origin, "--never-acknowledge")

    async def knock() -> int:
        try:
            return (await visit(site, "/gated")).status
        except Truncated:
            return 0

    async with asyncio.TaskGroup() as visits:
        running = [visits.create_task(knock()) for _ in range(400)]
        async with asyncio.timeout(STEP_SECONDS):
            while (await site.api("GET", "/api/tunnels"))[0]["request_count"] < 400:
                await asyncio.sleep(0.05)
        assert (await client.ask("stats", answer="stats"))["open_streams"] < 256
        origin.gate.set()

    assert client.violations == []
    assert 200 in {task.result() for task in running}


@pytest.mark.timeout(120)
async def test_a_client_that_breaks_yamux_in_every_way_leaves_no_stream_and_no_memory_behind(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    client = await start_shop(stack, site, origin, "--release", "0.7.8")
    assert (await visit(site, "/")).status == 200
    before = site.server.resident_bytes

    for kind, ends in BREAKS.items():
        # One idle stream and one that is in use; the latter's visitor leaves if nothing else ends it.
        async with await Visitor.connect(site.http_port) as visitor:
            visitor.send(f"GET /gated HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            async with asyncio.timeout(STEP_SECONDS):
                await origin.arrived.acquire()
            seen = len(client.lines)
            for word in kind.split("+"):
                client.command("data", word)
            if ends:
                await client.wait_event("attached", since=seen)
            visitor.writer.transport.abort()
        assert (await visit(site, "/")).status == 200, kind
        assert ends is not False or client.events("attached", since=seen) == [], kind

    stats = await wait_for_streams(client, 1)
    assert stats["waiting_streams"] == 0
    [session] = await site.api("GET", "/api/sessions")
    assert session["open_streams"] == 1
    assert site.server.resident_bytes - before < MOST_GROWTH_BYTES
    assert len(client.events("connected")) == 1
    origin.gate.set()


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
async def test_a_visitor_that_leaves_an_upload_without_credit_frees_its_stream(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, is_tls: bool
) -> None:
    # More than the stream's window, and little enough that the visitor's FIN fits behind it: one that
    # is queued behind a full receive buffer never comes here.
    client = await start_shop(stack, site, origin, "--never-grant")
    port, tls = (site.https_port, site.tls()) if is_tls else (site.http_port, None)
    async with await Visitor.connect(port, tls=tls, server_name=HOST if tls else None) as uploader:
        uploader.send(
            f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10000000\r\n\r\n".encode()
            + PATTERN * 6
        )
        await wait_for_streams(client, 1)
        # Not `close`, which waits for the server's goodbye when there is TLS.
        uploader.writer.transport.abort()
        await wait_for_streams(client, 0)


async def test_a_visitor_that_resets_a_connection_without_credit_frees_its_stream(
    site: Site, stack: AsyncExitStack
) -> None:
    # A service that says nothing: an answer of its own would end the stream before it is looked at.
    silent = await stack.enter_async_context(RawOrigin(read_to_the_end))
    await site.start_server()
    client = await start_rustunnel(
        stack, site, f"tcp:127.0.0.1:{silent.port}", options=["--never-grant"]
    )
    await client.wait_event("attached")
    with raw_connection(client.events("registered")[0]["assigned_port"]) as visitor:
        visitor.settimeout(STEP_SECONDS)
        visitor.sendall(PATTERN * 6)
        await wait_for_streams(client, 1)
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    await wait_for_streams(client, 0)
