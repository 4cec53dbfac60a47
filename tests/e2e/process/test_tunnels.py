"""A tunnel works: curl, WebSocket and HTTP clients through both edges, and bytes through TCP."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import httpx
import pytest
from websockets.asyncio.client import connect

from helpers.origins import PATTERN, RawOrigin, WebOrigin, echo
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0


@pytest.fixture
async def shop(site: Site, origin: WebOrigin) -> Site:
    await site.start_server()
    await site.start_agent("http", str(origin.port), "--name", "shop")
    return site


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_curl_gets_the_page_through_both_edges(shop: Site, tls: bool) -> None:
    page = await shop.curl(HOST, "/?a=1", tls=tls)

    assert (page.exit_code, page.text) == (0, "hello a=1")


async def test_the_agent_says_where_the_tunnel_is(shop: Site, origin: WebOrigin) -> None:
    agent = await shop.start_agent("http", f"127.0.0.1:{origin.port}")
    event = agent.events("tunnel_opened")[0]

    label = event["public_url"].removeprefix("http://").removesuffix(f":{shop.http_port}")
    assert label.endswith(".localhost")
    assert (await shop.curl(label, "/")).text == "hello "


async def test_the_service_sees_who_visits_and_under_which_name(shop: Site) -> None:
    page = await shop.curl(HOST, "/headers", "-H", "X-Forwarded-For: 203.0.113.9", tls=True)

    headers = json.loads(page.out)
    assert headers["host"] == f"{HOST}:{shop.https_port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-request-id"]


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_a_websocket_echoes_through_both_edges(shop: Site, tls: bool) -> None:
    port = shop.https_port if tls else shop.http_port
    async with (
        asyncio.timeout(STEP_SECONDS),
        connect(
            f"{'wss' if tls else 'ws'}://{HOST}:{port}/socket",
            host="127.0.0.1",
            port=port,
            ssl=shop.tls() if tls else None,
            subprotocols=["chat"],  # type: ignore[list-item]  # Subprotocol is a NewType of str
            max_size=None,
            proxy=None,
        ) as socket,
    ):
        assert socket.subprotocol == "chat"
        for message in ("hello", PATTERN * 32, "", "last"):
            await socket.send(message)
            assert await socket.recv() == message


async def test_events_arrive_one_by_one_as_they_are_sent(shop: Site, origin: WebOrigin) -> None:
    async with (
        asyncio.timeout(STEP_SECONDS),
        httpx.AsyncClient(trust_env=False) as visitor,
        visitor.stream(
            "GET", f"http://127.0.0.1:{shop.http_port}/events", headers={"Host": HOST}
        ) as answer,
    ):
        lines = answer.aiter_lines()
        for text in ("one", "two", "three"):
            # The next event is not even made before this one was seen.
            origin.news.put_nowait(text)
            assert await anext(lines) == f"data: {text}"
            assert not await anext(lines)
        origin.news.put_nowait(None)
        assert [line async for line in lines] == []


async def test_an_upload_reaches_the_service_while_it_is_sent(
    shop: Site, origin: WebOrigin
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"first", b"second", b"third"):
            yield piece
            # The next piece is not sent before the service has this one.
            assert await origin.uploaded.get() == piece

    url = f"http://127.0.0.1:{shop.http_port}/upload"
    async with (
        asyncio.timeout(STEP_SECONDS),
        aiohttp.ClientSession(headers={"Host": HOST}) as visitor,
        visitor.post(url, data=pieces()) as answer,
    ):
        assert await answer.text() == "uploaded"


@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked")], ids=["cl", "te"])
async def test_curl_uploads_a_file_after_being_told_to_continue(
    shop: Site, options: tuple[str, ...]
) -> None:
    content = PATTERN * 40
    (shop.directory / "upload").write_bytes(content)

    page = await shop.curl(
        HOST,
        "/hash",
        "-T",
        shop.directory / "upload",
        *("-H", "Expect: 100-continue", "-v", "--expect100-timeout", "20", *options),
    )

    assert json.loads(page.out) == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert "100 Continue" in page.err


async def test_head_has_the_headers_and_no_body(shop: Site) -> None:
    async with await Visitor.connect(shop.http_port) as visitor:
        head = await visitor.get(HOST, "/size/5000", method="HEAD")
        after = await visitor.get(HOST, "/")

    assert (head.status, head.header("Content-Length"), head.body) == (200, "5000", b"")
    assert after.body == b"hello "


async def test_ten_visitors_at_once_all_get_their_own_answer(shop: Site) -> None:
    async with asyncio.TaskGroup() as visits:
        pages = [visits.create_task(shop.curl(HOST, f"/?visitor={n}")) for n in range(10)]

    assert [page.result().text for page in pages] == [f"hello visitor={n}" for n in range(10)]


async def test_pipelined_requests_are_answered_in_their_order(shop: Site) -> None:
    async with await Visitor.connect(shop.http_port) as visitor:
        for number in range(40):
            visitor.send(f"GET /?{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answers = [await visitor.read_answer() for _ in range(40)]

    assert [answer.body for answer in answers] == [b"hello %d" % n for n in range(40)]


async def test_tcp_bytes_pass_and_half_close_keeps_the_other_direction(site: Site) -> None:
    async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = await reader.read()
        writer.write(hashlib.sha256(content).hexdigest().encode())

    await site.start_server()
    async with RawOrigin(at_the_end) as service:
        agent = await site.start_agent("tcp", str(service.port), "--port", str(site.tcp_port + 7))
        assert agent.events("tunnel_opened")[0]["public_url"] == (
            f"tcp://localhost:{site.tcp_port + 7}"
        )
        async with await Visitor.connect(site.tcp_port + 7) as visitor:
            visitor.send(PATTERN * 16)
            visitor.writer.write_eof()
            answer = await visitor.read_to_end()

    assert answer.decode() == hashlib.sha256(PATTERN * 16).hexdigest()


async def test_start_runs_all_tunnels_of_the_file(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    async with RawOrigin(echo) as service:
        path = site.directory / "moleport.yaml"
        path.write_text(
            "tunnels:\n"
            f"  shop: {{protocol: http, target: '{origin.port}', name: shop}}\n"
            f"  echo: {{protocol: tcp, target: '{service.port}', port: {site.tcp_port}}}\n"
        )
        await site.start_agent("start", "-f", path, tunnels=2)

        assert (await site.curl(HOST, "/")).text == "hello "
        async with await Visitor.connect(site.tcp_port) as visitor:
            visitor.send(b"ping")
            async with asyncio.timeout(STEP_SECONDS):
                assert await visitor.reader.readexactly(4) == b"ping"


async def test_an_agent_with_more_tunnels_than_binds_in_flight_gets_them_all(
    site: Site, origin: WebOrigin
) -> None:
    count = 80
    await site.start_server(f"limits.tunnels_per_session={count}")
    path = site.directory / "moleport.yaml"
    rows = (
        f"  tun{n}: {{protocol: http, target: '{origin.port}', name: tun{n}}}" for n in range(count)
    )
    path.write_text("tunnels:\n" + "\n".join(rows) + "\n")
    await site.start_agent("start", "-f", path, tunnels=count)

    for number in (0, count - 1):
        assert (await site.curl(f"tun{number}.localhost", "/")).text == "hello "
