"""Whatever strangers send to any listener, the tunnels go on and the service sees no smuggled request."""

import asyncio
import contextlib
import os

import pytest

from helpers.origins import WebOrigin
from helpers.site import Site
from helpers.visits import Truncated, Visitor

HOST = "shop.localhost"
HEAD = f"Host: {HOST}\r\n"
END_SECONDS = 15.0
GARBAGE = {
    "zeroes": bytes(4096),
    "noise": os.urandom(4096),
    "tls": bytes.fromhex("16030100f0010000ec0303") + bytes(200),
    "broken tls": b"\x16\x03\x01\xff\xff" + b"\x01" * 300,
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    "proxy header": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "endless line": b"GET /" + b"a" * 300_000,
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
}
SMUGGLING = {
    "cl and te": b"POST / HTTP/1.1\r\n%bContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n%bContent-Length: 0\r\nContent-Length: 44\r\n\r\n"
    b"GET /smuggled HTTP/1.1\r\n%b\r\n",
    "te twice": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"
    b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "te with a tab": b"POST / HTTP/1.1\r\n%bTransfer-Encoding:\tchunked, identity\r\n\r\n"
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "te in http 1.0": b"POST / HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "space before the colon": b"POST / HTTP/1.1\r\n%bContent-Length : 44\r\n\r\n"
    b"GET /smuggled HTTP/1.1\r\n%b\r\n",
    "folded line": b"POST / HTTP/1.1\r\n%bX: y\r\n Transfer-Encoding: chunked\r\n"
    b"Content-Length: zero\r\n\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "bare cr": b"POST / HTTP/1.1\r\n%bX: y\rTransfer-Encoding: chunked\r\n\r\n"
    b"GET /smuggled HTTP/1.1\r\n%b\r\n",
    "bad chunk size": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n"
    b"0x2c\r\nGET /smuggled HTTP/1.1\r\n%b\r\n",
    "negative length": b"POST / HTTP/1.1\r\n%bContent-Length: -1\r\n\r\n"
    b"GET /smuggled HTTP/1.1\r\n%b\r\n",
}
REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "other host in the target": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "http 0.9": (b"GET /\r\n\r\n", 400),
    "many fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 500 + b"\r\n", 431),
    "big head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    "unknown name": (b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n", 404),
}


@pytest.fixture
async def shop(site: Site, origin: WebOrigin) -> Site:
    await site.start_server("limits.header_read_seconds=2", "limits.tls_handshake_seconds=2")
    await site.start_agent("http", str(origin.port), "--name", "shop", "--quiet")
    return site


async def throw(port: int, data: bytes) -> None:
    """Send bytes to a listener and wait for it to end the connection."""
    async with await Visitor.connect(port) as visitor:
        with contextlib.suppress(ConnectionError):
            visitor.send(data)
            await visitor.writer.drain()
        await visitor.read_to_end(seconds=END_SECONDS)


async def test_garbage_to_every_listener_ends_there(shop: Site) -> None:
    ports = [shop.http_port, shop.https_port, shop.control_port, shop.api_port]
    async with asyncio.TaskGroup() as strangers:
        for port in ports:
            for data in GARBAGE.values():
                strangers.create_task(throw(port, data))

    assert (await shop.curl(HOST, "/")).text == "hello "
    assert (await shop.curl(HOST, "/", tls=True)).text == "hello "
    await shop.api("GET", "/api/status")
    assert " ERROR " not in shop.server.output
    assert "Traceback" not in shop.server.output


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING)
async def test_no_request_is_smuggled_behind_another(
    shop: Site, origin: WebOrigin, data: bytes
) -> None:
    head = HEAD.encode()
    async with await Visitor.connect(shop.http_port) as visitor:
        visitor.send(data % (head, head))
        answer = await visitor.read_answer()
        await visitor.read_to_end(seconds=END_SECONDS)

    assert answer.status == 400
    assert (await shop.curl(HOST, "/")).text == "hello "
    assert not [seen for seen in origin.seen if "smuggled" in seen]


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_breaks_the_rules_is_refused(shop: Site, data: bytes, status: int) -> None:
    async with await Visitor.connect(shop.http_port) as visitor:
        visitor.send(data)
        answer = await visitor.read_answer()

    assert answer.status == status
    assert answer.header("X-Moleport-Error")


async def test_a_head_in_drops_is_cut_off(shop: Site) -> None:
    async with await Visitor.connect(shop.http_port) as visitor:
        visitor.send(b"GET / HTTP/1.1\r\nHo")
        answer = await visitor.read_answer()

    assert answer.status == 408


async def test_garbage_frames_of_an_agent_end_that_session_only(shop: Site) -> None:
    request = (
        "GET /api/v1/tunnel/connect HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: hoody-tunnel.v2\r\n"
        f"Authorization: Bearer {shop.admin_token}\r\n\r\n"
    )
    for frame in (
        b"\x82\x85\0\0\0\0hello",
        b"\x82\xfe\x40\x00\0\0\0\0" + bytes(0x4000),
        b"\xff" * 99,
    ):
        async with await Visitor.connect(
            shop.control_port, tls=shop.tls(), server_name="localhost"
        ) as stranger:
            stranger.send(request.encode())
            with contextlib.suppress(Truncated):
                assert (await stranger.read_answer()).status == 101
            stranger.send(frame)
            await stranger.read_to_end(seconds=END_SECONDS)

    assert (await shop.curl(HOST, "/")).text == "hello "
    assert "Traceback" not in shop.server.output
