"""Ends pass through: nobody works for a visitor who left, nothing cut short looks complete."""

import asyncio
import socket
import struct

import pytest

from helpers.origins import PATTERN, RawOrigin, WebOrigin
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0
CURL_PARTIAL = {18, 56}
"""Curl's codes for a body that is too short, and for a connection that was reset."""


@pytest.fixture
async def shop(site: Site, origin: WebOrigin) -> Site:
    await site.start_server()
    await site.start_agent("http", str(origin.port), "--name", "shop")
    return site


@pytest.mark.parametrize("path", ["/gated", "/endless"], ids=["before the answer", "within it"])
async def test_the_service_sees_that_a_visitor_left(
    shop: Site, origin: WebOrigin, path: str
) -> None:
    visitor = await Visitor.connect(shop.http_port)
    visitor.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    async with asyncio.timeout(STEP_SECONDS):
        while not origin.seen[f"GET {path}"]:
            await asyncio.sleep(0.01)
        await visitor.aclose()
        await origin.abort_seen.wait()

    assert origin.aborted[path] == 1


async def test_the_service_sees_that_an_upload_broke_off(shop: Site, origin: WebOrigin) -> None:
    visitor = await Visitor.connect(shop.http_port)
    visitor.send(f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 99\r\n\r\nx".encode())
    async with asyncio.timeout(STEP_SECONDS):
        assert await origin.uploaded.get() == b"x"
        visitor.writer.transport.abort()
        await origin.abort_seen.wait()

    assert origin.uploaded.empty()
    await visitor.aclose()


@pytest.mark.parametrize("path", ["/half", "/half?chunked"], ids=["length", "chunked"])
async def test_a_service_that_vanishes_within_its_answer_is_seen_by_curl(
    shop: Site, origin: WebOrigin, path: str
) -> None:
    origin.gate.set()

    page = await shop.curl(HOST, path)

    assert page.exit_code in CURL_PARTIAL
    assert len(page.out) <= 1000


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("crashes", [False, True], ids=["orderly", "reset"])
async def test_an_answer_that_ends_with_its_connection_is_complete_only_after_an_orderly_end(
    site: Site, tls: bool, crashes: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PATTERN)
        await writer.drain()
        if crashes:
            reset(writer)

    await site.start_server()
    async with RawOrigin(serve) as service:
        await site.start_agent("http", str(service.port), "--name", "shop")
        page = await site.curl(HOST, "/", tls=tls)

    if crashes:
        # A reset may overtake bytes, so the head may be lost as well: then it is a 502.
        assert page.exit_code in CURL_PARTIAL or b"upstream-lost" in page.out
    else:
        assert (page.exit_code, page.out) == (0, PATTERN)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close as a crash or a firewall does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_service_that_hangs_up_before_its_answer_is_a_502(site: Site) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    await site.start_server()
    async with RawOrigin(serve) as service:
        await site.start_agent("http", str(service.port), "--name", "shop")
        async with await Visitor.connect(site.http_port) as visitor:
            answer = await visitor.get(HOST, method="POST", body=b"x")

    assert (answer.status, answer.header("X-Moleport-Error")) == (502, "upstream-lost")


async def test_a_service_that_is_not_running_is_a_502_and_the_agent_says_so(
    site: Site, origin: WebOrigin
) -> None:
    async with RawOrigin(lambda reader, writer: asyncio.sleep(0)) as closed:
        port = closed.port
    await site.start_server()
    agent = await site.start_agent("http", str(port), "--name", "shop")

    async with await Visitor.connect(site.http_port) as visitor:
        answer = await visitor.get(HOST)

    assert (answer.status, answer.header("X-Moleport-Error")) == (502, "upstream-refused")
    assert (await agent.wait_event("upstream_failed"))["name"] == "shop"


async def test_a_reset_passes_through_a_tcp_tunnel_in_both_directions(site: Site) -> None:
    ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(1) == b"r":
                writer.write(b"partial")
                await writer.drain()
                reset(writer)
                return
            await reader.read()
            ends.put_nowait("orderly")
        except ConnectionError:
            ends.put_nowait("reset")

    await site.start_server()
    async with RawOrigin(serve) as service:
        await site.start_agent("tcp", str(service.port), "--port", str(site.tcp_port))

        async with await Visitor.connect(site.tcp_port) as visitor, asyncio.timeout(STEP_SECONDS):
            visitor.send(b"r")
            with pytest.raises(ConnectionResetError):
                await visitor.reader.read()

        visitor = await Visitor.connect(site.tcp_port)
        visitor.send(b"x")
        async with asyncio.timeout(STEP_SECONDS):
            while service.connections < 2:
                await asyncio.sleep(0.01)
        reset(visitor.writer)
        async with asyncio.timeout(STEP_SECONDS):
            assert await ends.get() == "reset"
        await visitor.aclose()


async def test_an_upgraded_connection_ends_when_its_service_does(
    site: Site, origin: WebOrigin
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        writer.write(await reader.readexactly(4))

    await site.start_server()
    async with RawOrigin(serve) as service:
        await site.start_agent("http", str(service.port), "--name", "shop")
        async with await Visitor.connect(site.http_port) as visitor:
            answer = await visitor.get(
                HOST, extra="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
            )
            assert answer.status == 101
            visitor.send(b"ping")
            assert await visitor.read_to_end(seconds=STEP_SECONDS) == b"ping"
