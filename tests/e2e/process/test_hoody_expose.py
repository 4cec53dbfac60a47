"""Stock hoody-tunnel clients expose HTTP services: by public name and by container port.

The client is a double that shares no code with the server (`helpers.doubles`) and notes every rule of
the protocol that the server breaks.
"""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest
from websockets.asyncio.client import connect

from helpers.doubles.process import Double, start_hoody
from helpers.origins import PATTERN, WebOrigin, pattern_hash
from helpers.site import Curl, Site
from helpers.visits import Visitor

STEP_SECONDS = 20.0

CLIENTS = [
    pytest.param(("--generation", "old"), id="old v1"),
    pytest.param(("--generation", "old", "--sockets", "4"), id="old v2"),
    pytest.param(("--generation", "new"), id="new v1"),
    pytest.param(("--generation", "new", "--sockets", "16"), id="new v2"),
]
NEW = ("--generation", "new", "--sockets", "4")


class Shop:
    """An exposed service and where it is."""

    def __init__(self, site: Site, client: Double, bound: dict[str, str]) -> None:
        self.site = site
        self.client = client
        self.port = int(bound["container_port"])
        self.host = urlsplit(bound["public_url"]).hostname or ""

    async def curl(self, path: str, *options: str) -> Curl:
        return await self.site.run_curl(*options, f"http://127.0.0.1:{self.port}{path}")


async def open_shop(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str, port: int = 0
) -> Shop:
    await site.start_server()
    client = await start_hoody(stack, site, "--expose", f"{port}:127.0.0.1:{origin.port}", *options)
    return Shop(site, client, await client.wait_event("bound"))


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_page_comes_by_container_port_and_by_name(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    pages = [
        await shop.curl("/?a=1"),
        await site.curl(shop.host, "/?a=1"),
        await site.curl(shop.host, "/?a=1", tls=True),
    ]

    assert [page.text for page in pages] == ["hello a=1"] * 3
    assert shop.host == f"port-{shop.port}.localhost"
    assert 20_000 <= shop.port <= 65_534
    assert shop.client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_head_has_the_length_and_no_body(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    async with await Visitor.connect(shop.port) as visitor:
        head = await visitor.get("pod", "/size/5000", method="HEAD")
        after = await visitor.get("pod", "/")

    # An old client does not get HEAD to work, so it is asked with GET.
    assert (head.status, head.header("Content-Length"), head.body) == (200, "5000", b"")
    assert after.body == b"hello "
    assert shop.client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_large_page_comes_whole(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    page = await shop.curl("/size/20000000")

    assert hashlib.sha256(page.out).hexdigest() == pattern_hash(20_000_000)
    assert shop.client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
@pytest.mark.parametrize("framing", [(), ("-H", "Transfer-Encoding: chunked")], ids=["cl", "te"])
async def test_an_upload_reaches_the_service_whole(
    site: Site,
    origin: WebOrigin,
    stack: AsyncExitStack,
    options: tuple[str, ...],
    framing: tuple[str, ...],
) -> None:
    shop = await open_shop(stack, site, origin, *options)
    content = PATTERN * 40
    (site.directory / "upload").write_bytes(content)

    page = await shop.curl("/hash", "-T", str(site.directory / "upload"), *framing)

    assert json.loads(page.out)["sha256"] == hashlib.sha256(content).hexdigest()
    assert shop.client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_an_empty_body_has_an_end_too(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    pages = [await shop.curl("/hash", "-X", "POST", "-d", "") for _ in range(3)]

    # A second end would corrupt the next request on the client's local connection.
    assert [json.loads(page.out)["bytes"] for page in pages] == [0, 0, 0]
    assert shop.client.violations == []


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_websocket_echoes(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    async with (
        asyncio.timeout(STEP_SECONDS),
        connect(
            f"ws://127.0.0.1:{shop.port}/socket",
            subprotocols=["chat"],  # type: ignore[list-item]  # Subprotocol is a NewType of str
            max_size=None,
            proxy=None,
        ) as socket,
    ):
        assert socket.subprotocol == "chat"
        for message in ("hello", PATTERN * 8, "", "last"):
            await socket.send(message)
            assert await socket.recv() == message

    assert shop.client.violations == []


async def test_a_declined_upgrade_is_answered_like_any_request(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)
    upgrade = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket")

    page = await shop.curl("/?a=1", *upgrade)

    assert page.text == "hello a=1"


async def test_events_arrive_one_by_one(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    async with (
        asyncio.timeout(STEP_SECONDS),
        aiohttp.ClientSession() as visitor,
        visitor.get(f"http://127.0.0.1:{shop.port}/events") as answer,
    ):
        for text in ("one", "two", "three"):
            origin.news.put_nowait(text)
            assert await answer.content.readline() == f"data: {text}\n".encode()
            assert await answer.content.readline() == b"\n"
        origin.news.put_nowait(None)
        assert await answer.content.read() == b""


async def test_the_service_sees_the_visitor_and_neither_its_connection_nor_its_expectations(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    page = await shop.curl(
        "/headers", "-H", "X-Forwarded-For: 203.0.113.9", "-H", "Keep-Alive: 5", "-H", "A: ä"
    )

    headers = json.loads(page.out)
    assert headers["host"] == f"127.0.0.1:{origin.port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-host"] == f"127.0.0.1:{shop.port}"
    assert headers["a"] == "ä"
    assert "keep-alive" not in headers


async def test_the_body_of_a_get_is_refused_since_clients_drop_it(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    refused = [
        await shop.curl("/headers", "-X", "GET", "-d", "x", "-i", *framing)
        for framing in ((), ("-H", "Transfer-Encoding: chunked"))
    ]
    empty = await shop.curl("/headers", "-H", "Content-Length: 0")

    assert [page.text.startswith("HTTP/1.1 413 ") for page in refused] == [True] * 2
    assert "content-length" not in json.loads(empty.out)


async def test_a_head_that_fits_into_no_frame_gets_431(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)
    # Every quotation mark takes two bytes in JSON.
    fields = [part for number in range(8) for part in ("-H", f"A-{number}: " + '"' * 7000)]

    page = await shop.curl("/", "-i", *fields)

    assert page.text.startswith("HTTP/1.1 431 ")
    assert "x-moleport-error: head-too-large" in page.text.lower()


async def test_a_visitor_that_leaves_ends_the_request_at_the_service(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    async with await Visitor.connect(shop.port) as visitor:
        visitor.send(b"GET /gated HTTP/1.1\r\nHost: pod\r\n\r\n")
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()

    async with asyncio.timeout(STEP_SECONDS):
        await origin.abort_seen.wait()


async def test_an_answer_that_is_cut_short_never_looks_complete(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)
    origin.gate.set()

    pages = [await shop.curl(path) for path in ("/half", "/half?chunked")]

    assert all(page.exit_code != 0 for page in pages)


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_service_that_is_down_is_told_at_once(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)
    await origin.__aexit__(None, None, None)

    page = await shop.curl("/", "-i")

    assert page.text.startswith("HTTP/1.1 502 ")
    assert shop.client.violations == []


async def test_of_many_slow_requests_the_driver_gets_two_hundred_and_none_fails(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as visitor,
    ):

        async def visit() -> str:
            async with visitor.get(f"http://127.0.0.1:{shop.port}/gated") as answer:
                return await answer.text()

        async with asyncio.TaskGroup() as visits:
            answers = [visits.create_task(visit()) for _ in range(400)]
            for _ in range(200):
                await origin.arrived.acquire()
            sessions = await site.api("GET", "/api/sessions")
            at_the_service = origin.seen["GET /gated"]
            origin.gate.set()

    assert [answer.result() for answer in answers] == ["through the gate"] * 400
    assert at_the_service == 200
    assert sessions[0]["open_streams"] > 200
    assert (await site.api("GET", "/api/sessions"))[0]["open_streams"] == 0


async def test_above_the_most_streams_visitors_are_told_to_come_again(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("hoody.max_streams=1")
    client = await start_hoody(stack, site, "--expose", f"0:127.0.0.1:{origin.port}", *NEW)
    shop = Shop(site, client, await client.wait_event("bound"))

    async with await Visitor.connect(shop.port) as visitor:
        visitor.send(b"GET /gated HTTP/1.1\r\nHost: pod\r\n\r\n")
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        page = await shop.curl("/", "-i")
        origin.gate.set()
        first = await visitor.read_answer()

    assert page.text.startswith("HTTP/1.1 503 ")
    assert "retry-after: 1" in page.text.lower()
    assert first.body == b"through the gate"
    assert (await shop.curl("/")).text == "hello "


@pytest.mark.parametrize("options", CLIENTS[2:])
async def test_four_visitors_that_stop_reading_do_not_delay_a_fifth(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    async with AsyncExitStack() as stalled:
        for _ in range(4):
            visitor = await stalled.enter_async_context(await Visitor.connect(shop.port))
            visitor.send(b"GET /endless HTTP/1.1\r\nHost: pod\r\n\r\n")
            async with asyncio.timeout(STEP_SECONDS):
                await visitor.reader.readexactly(1)
        page = await shop.curl("/size/3000000", "--max-time", "20")

    assert len(page.out) == 3_000_000


async def test_two_requests_at_once_to_both_sockets_are_not_mixed_up(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    shop = await open_shop(stack, site, origin, *NEW)

    async with asyncio.TaskGroup() as visits:
        pages = [visits.create_task(shop.curl(f"/size/{n * 100_000}")) for n in range(1, 13)]

    for number, page in enumerate(pages, 1):
        assert hashlib.sha256(page.result().out).hexdigest() == pattern_hash(number * 100_000)
    assert shop.client.violations == []
