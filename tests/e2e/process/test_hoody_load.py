"""Stock hoody-tunnel clients under load: broken links, kills, much data, many visitors, rude ends.

What the process tests ask of our own agent is asked of this protocol, in few and long scenarios: a
client costs a second to start. It is a double that shares no code with the server (`helpers.doubles`).
"""

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from helpers.doubles.hoody_frames import PATH
from helpers.doubles.process import Double, start_hoody
from helpers.origins import PATTERN, GrudgingOrigin, RawOrigin, WebOrigin, pattern_hash
from helpers.relay import Relay
from helpers.site import Site
from helpers.visits import Answer, Load, Visitor
from moleport_wire.aio.sockets import abort_with_reset

HOST = "pod"
MIB = 1024 * 1024
STEP_SECONDS = 20.0
MOST_GROWTH_BYTES = 32 * MIB
GRANT_BYTES = MIB
"""So much session credit the server may keep back until more is to be granted."""
OTHERS = 16
"""Connections of agents and callers of the API cost permits as well, and are counted once a second."""
OLD_V2 = ("--generation", "old", "--sockets", "4")
NEW_V2 = ("--generation", "new", "--sockets", "4")
CLIENTS = [
    pytest.param(OLD_V2, id="old v2"),
    pytest.param(NEW_V2, id="new v2"),
]


@pytest.fixture
async def relay(site: Site) -> AsyncIterator[Relay]:
    async with Relay(site.control_port) as relay:
        yield relay


async def expose(
    stack: AsyncExitStack, site: Site, service: WebOrigin | RawOrigin, *options: str, port: int = 0
) -> tuple[Double, int]:
    target = f"{port}:127.0.0.1:{service.port}"
    client = await start_hoody(stack, site, "--expose", target, *options)
    return client, int((await client.wait_event("bound"))["container_port"])


async def visit(port: int, path: str = "/") -> Answer:
    async with await Visitor.connect(port) as visitor:
        return await visitor.get(HOST, path)


async def overview(site: Site) -> tuple[int, int]:
    """Return how many streams are open and how many permits are left."""
    seen = await site.api("GET", "/api/v1/tunnel/tunnels")
    return seen["totalStreams"], seen["fdPermitsAvailable"]


async def wait_for_rest(site: Site, client: Double, permits: int, credit: int) -> None:
    """Wait until nothing of any visitor is left, at either end."""
    seen: dict[str, int] = {}

    def is_at_rest() -> bool:
        return (
            seen["streams"] == seen["streams of the client"] == 0
            and seen["permits"] > permits - OTHERS
            and seen["credit"] > credit - GRANT_BYTES
        )

    try:
        async with asyncio.timeout(STEP_SECONDS):
            while not seen or not is_at_rest():
                stats = await client.ask("stats", answer="stats")
                streams, left = await overview(site)
                seen = {
                    "streams": streams,
                    "permits": left,
                    "streams of the client": stats["open_streams"],
                    "credit": stats["session_credit"],
                }
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{seen}, at first {permits=} {credit=}\n{site.server}") from None


@pytest.mark.timeout(120)
async def test_no_request_fails_while_links_break_and_the_client_is_killed_and_replaced(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, relay: Relay
) -> None:
    await site.start_server()
    through = ("--url", f"wss://localhost:{relay.port}{PATH}")
    first, port = await expose(stack, site, origin, *NEW_V2, "--keep-alive", *through)

    async with Load(port, HOST, connections=32).running() as load:
        await load.wait_successes(200)
        for _ in range(2):
            relay.reset_newest()  # a secondary: its requests are sent again by another socket
            await load.wait_successes(100)
        for _ in range(2):
            seen = len(first.lines)
            relay.cut()
            await first.wait_event("session_lost", since=seen)
            relay.restore()
            assert (await first.wait_event("connected", since=seen))["resumed"] is True
            await load.wait_successes(100)
        relay.stall()
        await asyncio.sleep(0.5)
        relay.restore()
        await load.wait_successes(100)
        await first.kill()
        await site.server.wait_line("session parked")
        second, again = await expose(stack, site, origin, *NEW_V2, "--takeover", port=port)
        await load.wait_successes(200)

    assert again == port
    assert [attempt for attempt in load.failures() if not attempt.had_begun] == []
    assert first.violations == second.violations == []
    assert (await overview(site))[0] == 0


@pytest.mark.parametrize("options", CLIENTS)
@pytest.mark.timeout(180)
async def test_a_restarted_server_gets_its_clients_back_and_no_request_fails_from_readiness_on(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    # New drivers resume by themselves. Old ones have no such thing: whoever uses one names the session.
    does_it_by_itself = options is NEW_V2
    # Connections that stay open are cut at the end of the drain.
    await site.start_server("server.drain_delay_seconds=0", "server.drain_seconds=1")
    client, port = await expose(
        stack,
        site,
        origin,
        *options,
        *("--pull", f"0:127.0.0.1:{origin.port}"),
        *(["--keep-alive"] if does_it_by_itself else []),
    )
    pulled = int((await client.wait_events("bound", 2))[1]["container_port"])
    binds = client.events("bound")
    session_id = client.events("connected")[0]["session_id"]
    loads = Load(port, HOST), Load(pulled, HOST, connections=4, per_second=40)

    async with loads[0].running(), loads[1].running():
        for end in (signal.SIGKILL, signal.SIGTERM):
            for load in loads:
                await load.wait_successes(50)
            seen = len(client.lines)
            site.server.send_signal(end)
            await site.server.wait_exit()
            await site.start_server("server.drain_delay_seconds=0", "server.drain_seconds=1")
            ready = datetime.now(UTC)
            if not does_it_by_itself:
                client.command("resume")
            back = await client.wait_event("connected", since=seen, seconds=STEP_SECONDS)

            assert (back["session_id"], back["resumed"]) == (session_id, True)
            assert {(bind["bindId"], bind["containerPort"]) for bind in back["resumed_binds"]} == {
                (bind["bind_id"], bind["container_port"]) for bind in binds
            }
            for load in loads:
                await load.wait_successes(50)
                assert load.failures(since=ready) == [], f"after {end.name}"

    assert client.violations == []


@pytest.mark.parametrize("mebibytes", [48, pytest.param(1024, marks=pytest.mark.load)])
@pytest.mark.timeout(600)
async def test_bodies_and_connections_are_whole_both_ways_and_cost_no_memory(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, mebibytes: int
) -> None:
    size = mebibytes * MIB
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW_V2)
    assert (await visit(port)).status == 200
    before = site.server.resident_bytes
    path = site.directory / "upload"
    with path.open("wb") as upload:
        for _ in range(size // len(PATTERN)):
            upload.write(PATTERN)

    async with await Visitor.connect(port) as visitor:
        visitor.send(f"GET /size/{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await visitor.reader.readuntil(b"\r\n\r\n")
        assert await hash_of(visitor.reader, size) == pattern_hash(size)
    page = await site.run_curl("-T", path, "--max-time", "300", f"http://127.0.0.1:{port}/hash")
    assert json.loads(page.out) == {"sha256": pattern_hash(size), "bytes": size}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # No side ends before both have everything: drivers drop what comes for a service that ended.
        async with asyncio.TaskGroup() as both:
            both.create_task(send_pattern(writer, size))
            uploaded.put_nowait(await hash_of(reader, size))

    uploaded: asyncio.Queue[str] = asyncio.Queue()
    async with RawOrigin(serve) as service:
        puller = await start_hoody(stack, site, *NEW_V2, "--pull", f"0:127.0.0.1:{service.port}")
        pulled = int((await puller.wait_event("bound"))["container_port"])
        async with await Visitor.connect(pulled) as visitor, asyncio.TaskGroup() as both:
            both.create_task(send_pattern(visitor.writer, size))
            assert await hash_of(visitor.reader, size) == pattern_hash(size)
        assert await uploaded.get() == pattern_hash(size)

    assert site.server.peak_resident_bytes - before < MOST_GROWTH_BYTES
    assert client.violations == puller.violations == []


async def hash_of(reader: asyncio.StreamReader, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        piece = await reader.read(min(size, MIB))
        assert piece, f"{size} bytes are missing"
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


async def send_pattern(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // len(PATTERN)):
        writer.write(PATTERN)
        await writer.drain()


@pytest.mark.timeout(180)
async def test_thousands_of_visitors_wait_their_turn_and_leave_nothing_behind(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW_V2)
    assert (await visit(port)).status == 200
    credit = (await client.ask("stats", answer="stats"))["session_credit"]
    _, permits = await overview(site)

    async with AsyncExitStack() as idle:
        for _ in range(1500):  # connected, and nothing more
            await idle.enter_async_context(await Visitor.connect(port))
        async with asyncio.TaskGroup() as visits:
            running = [visits.create_task(visit(port, "/gated")) for _ in range(1000)]
            async with asyncio.timeout(STEP_SECONDS):
                while (await overview(site))[0] < 1000:
                    await asyncio.sleep(0.05)
            at_the_service = origin.seen["GET /gated"]
            origin.gate.set()
        # And one after the other over connections that are kept.
        async with await Visitor.connect(port) as visitor:
            kept = [(await visitor.get(HOST)).status for _ in range(200)]

    assert at_the_service <= 200
    assert {task.result().status for task in running} == {200}
    assert set(kept) == {200}
    await wait_for_rest(site, client, permits, credit)
    assert client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
@pytest.mark.timeout(120)
async def test_visitors_that_vanish_in_each_phase_leave_nothing_behind(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *options)
    puller = await start_hoody(stack, site, *options, "--pull", f"0:127.0.0.1:{origin.port}")
    pulled = int((await puller.wait_event("bound"))["container_port"])
    assert (await visit(port)).status == 200
    credit = (await client.ask("stats", answer="stats"))["session_credit"]
    _, permits = await overview(site)
    host = f"Host: {HOST}\r\n"
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    phases = {
        "before a request": b"",
        "in a head": f"GET / HTTP/1.1\r\n{host}".encode(),
        "before the answer": f"GET /gated HTTP/1.1\r\n{host}\r\n".encode(),
        "in an upload": f"POST /hash HTTP/1.1\r\n{host}Content-Length: 9000000\r\n\r\n".encode()
        + PATTERN,
        "in a chunk": f"POST /hash HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nff\r\nx".encode(),
        "after an answer": f"GET / HTTP/1.1\r\n{host}\r\n".encode(),
        "in an upgrade": f"GET /socket HTTP/1.1\r\n{host}{upgrade}"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode(),
        "in an answer": f"GET /size/9000000 HTTP/1.1\r\n{host}\r\n".encode(),
    }
    answered = {"after an answer", "in an upgrade", "in an answer"}

    # All of the driver's places are taken first, so that the others vanish in the line as well.
    for busy in (0, 200):
        gated = [await Visitor.connect(port) for _ in range(busy)]
        for visitor in gated:
            visitor.send(phases["before the answer"])
        async with asyncio.timeout(STEP_SECONDS):
            while (await overview(site))[0] < busy:
                await asyncio.sleep(0.05)
        for phase, data in phases.items():
            visitor = await Visitor.connect(port)
            visitor.send(data)
            if phase in answered and not busy:
                async with asyncio.timeout(STEP_SECONDS):
                    await visitor.reader.readuntil(b"\r\n\r\n")
            visitor.writer.transport.abort()
            await visitor.aclose()
        for data in (b"", b"GET /size/9000000 HTTP/1.1\r\nHost: x\r\n\r\n"):
            visitor = await Visitor.connect(pulled)
            visitor.send(data)
            # An orderly end is a half close, behind which an old client is given its time.
            assert isinstance(visitor.writer.transport, asyncio.Transport)
            abort_with_reset(visitor.writer.transport)
            await visitor.aclose()
        for visitor in gated:
            visitor.writer.transport.abort()
            await visitor.aclose()
        # An old client goes on with a GET until its service has answered.
        origin.gate.set()
        await wait_for_rest(site, client, permits, credit)
        origin.gate.clear()

    assert (await visit(port)).status == 200
    assert client.violations == puller.violations == []
    assert "Traceback" not in site.server.output


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_service_that_hangs_up_on_idle_connections_costs_the_request_that_met_it(
    site: Site, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    # Drivers keep connections for the next request, and say for each loss that they could not connect.
    await site.start_server()
    grudging = GrudgingOrigin(requests_each=3, runs_before_close=True)

    async def visit_all(method: str, name: str) -> list[Answer]:
        async with await Visitor.connect(port) as visitor:
            return [
                await visitor.get(
                    HOST,
                    method=method,
                    extra=f"X-Number: {name}x{number}\r\n",
                    body=b"order" if method == "POST" else b"",
                )
                for number in range(40)
            ]

    async with RawOrigin(grudging.serve) as service:
        client, port = await expose(stack, site, service, *options)
        answers = await visit_all("POST", "post")
        hangups = grudging.hangups
        pages = await visit_all("GET", "get")

    assert max(runs for name, runs in grudging.runs.items() if name.startswith("post")) == 1
    assert {answer.status for answer in answers} <= {200, 502}
    assert sum(answer.status == 502 for answer in answers) == hangups > 5
    assert {page.status for page in pages} == {200}
    assert client.violations == []
