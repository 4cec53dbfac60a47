"""Stock hoody-tunnel clients pull: a loopback port of the pod leads to a TCP service beside them.

Old clients break half closes in two ways, which the server works around; see `agents.hoody.pull`.
"""

import asyncio
import contextlib
import hashlib
from contextlib import AsyncExitStack

import pytest

from helpers.doubles.process import Double, start_hoody
from helpers.origins import PATTERN, RawOrigin, echo
from helpers.processes import free_port
from helpers.site import Site
from helpers.visits import Visitor

STEP_SECONDS = 20.0
CLIENTS = [
    pytest.param(("--generation", "old"), id="old v1"),
    pytest.param(("--generation", "new"), id="new v1"),
    pytest.param(("--generation", "new", "--sockets", "4"), id="new v2"),
]


async def sum_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer when the visitor has ended, which only works if the half close arrives."""
    content = await reader.read()
    writer.write(hashlib.sha256(content).hexdigest().encode())


async def pull(
    stack: AsyncExitStack, site: Site, service: RawOrigin, *options: str, port: int = 0
) -> tuple[Double, int]:
    client = await start_hoody(stack, site, "--pull", f"{port}:127.0.0.1:{service.port}", *options)
    bound = await client.wait_event("bound")
    return client, int(bound["container_port"])


@pytest.mark.parametrize("options", CLIENTS)
async def test_bytes_pass_and_the_end_of_the_visitor_arrives(
    site: Site, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    service = await stack.enter_async_context(RawOrigin(sum_up))
    client, port = await pull(stack, site, service, *options)

    async with await Visitor.connect(port) as visitor:
        visitor.send(PATTERN * 16)
        visitor.writer.write_eof()
        async with asyncio.timeout(STEP_SECONDS):
            answer = await visitor.reader.readexactly(64)

    assert answer.decode() == hashlib.sha256(PATTERN * 16).hexdigest()
    assert client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_an_end_at_once_loses_nothing(
    site: Site, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    service = await stack.enter_async_context(RawOrigin(sum_up))
    client, port = await pull(stack, site, service, *options)

    for content in (b"GET / please\n", b""):
        async with await Visitor.connect(port) as visitor:
            visitor.send(content)
            visitor.writer.write_eof()
            async with asyncio.timeout(STEP_SECONDS):
                answer = await visitor.reader.readexactly(64)
        assert answer.decode() == hashlib.sha256(content).hexdigest()

    assert client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_both_directions_flow_at_once(
    site: Site, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    service = await stack.enter_async_context(RawOrigin(echo))
    client, port = await pull(stack, site, service, *options)

    async with await Visitor.connect(port) as visitor:
        for _ in range(64):
            visitor.send(PATTERN)
        async with asyncio.timeout(STEP_SECONDS):
            content = await visitor.reader.readexactly(64 * len(PATTERN))

    assert content == PATTERN * 64
    assert client.violations == []


async def test_the_port_is_on_loopback_of_the_wished_family(
    site: Site, stack: AsyncExitStack
) -> None:
    await site.start_server()
    service = await stack.enter_async_context(RawOrigin(echo))
    _, port = await pull(stack, site, service, "--pull-host", "::1")

    async with asyncio.timeout(STEP_SECONDS):
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--pull-host", "0.0.0.0"), "INVALID_HOST"),
        (("--pull-host", "localhost"), "INVALID_HOST"),
    ],
)
async def test_a_pull_elsewhere_is_refused(
    site: Site, stack: AsyncExitStack, options: tuple[str, ...], code: str
) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--pull", "0:127.0.0.1:1", *options)

    refused = await client.wait_event("bind_refused")

    assert refused["code"] == code


async def test_a_service_that_is_down_cuts_the_visitor(site: Site, stack: AsyncExitStack) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--pull", f"0:127.0.0.1:{free_port()}")
    port = int((await client.wait_event("bound"))["container_port"])

    async with asyncio.timeout(STEP_SECONDS):
        with pytest.raises(ConnectionError):  # maybe seen while connecting already
            async with await Visitor.connect(port) as visitor:
                await visitor.reader.readexactly(1)


async def test_where_pull_is_off_nobody_gets_a_port(site: Site, stack: AsyncExitStack) -> None:
    await site.start_server("hoody.pull=false")
    client = await start_hoody(stack, site, "--pull", "0:127.0.0.1:1")

    refused = await client.wait_event("bind_refused")

    assert refused["code"] == "FORBIDDEN"
    assert "hoody.pull" in refused["message"]


async def test_a_connection_above_the_most_streams_is_dropped(
    site: Site, stack: AsyncExitStack
) -> None:
    await site.start_server("hoody.max_streams=1")
    service = await stack.enter_async_context(RawOrigin(echo))
    client, port = await pull(stack, site, service)

    async with await Visitor.connect(port) as first:
        await echoes(first)
        await is_turned_away(port)
        await echoes(first)
    async with asyncio.timeout(STEP_SECONDS):
        while (await site.api("GET", "/api/sessions"))[0]["open_streams"]:
            await asyncio.sleep(0.05)

    async with await Visitor.connect(port) as third:
        await echoes(third)
    assert client.violations == []


async def test_a_parked_port_stays_and_drops_who_may_not_wait(
    site: Site, stack: AsyncExitStack
) -> None:
    await site.start_server("hold.per_tunnel=0")
    service = await stack.enter_async_context(RawOrigin(echo))
    client, port = await pull(stack, site, service, "--generation", "old")
    since = len(client.lines)
    client.command("drop")
    await site.server.wait_line("session parked")

    await is_turned_away(port)
    client.command("resume")
    resumed = await client.wait_event("connected", since=since)

    assert resumed["resumed_binds"] == [
        {"bindId": 1, "kind": "tcp", "mode": "pull", "containerPort": port}
    ]
    async with asyncio.timeout(STEP_SECONDS):
        # Streams of a resumed session begin a moment after the answer to its HELLO.
        while not (await site.api("GET", "/api/v1/tunnel/bindings"))["total"]:
            await asyncio.sleep(0.02)
    async with await Visitor.connect(port) as visitor:
        await echoes(visitor)
    assert client.violations == []


async def echoes(visitor: Visitor) -> None:
    visitor.send(b"ping")
    async with asyncio.timeout(STEP_SECONDS):
        assert await visitor.reader.readexactly(4) == b"ping"


async def is_turned_away(port: int) -> None:
    """Connect and see the reset, which may be quicker than the connection."""
    with contextlib.suppress(ConnectionResetError):
        async with await Visitor.connect(port) as visitor:
            await is_dropped(visitor)


async def is_dropped(visitor: Visitor) -> None:
    async with asyncio.timeout(STEP_SECONDS):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.reader.readexactly(1)
