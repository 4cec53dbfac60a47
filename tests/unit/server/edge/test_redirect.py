import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from helpers.visitor import Visitor
from moleport_server.config.values import Endpoint
from moleport_server.edge.plain_listener import listen
from moleport_server.edge.redirect import RedirectConnection
from moleport_server.listening import bind_listener


@asynccontextmanager
async def redirecting(
    https_port: int = 443, *, head_bytes: int = 1000, head_seconds: float = 3.0
) -> AsyncIterator[int]:
    server = listen(
        bind_listener(Endpoint("127.0.0.1", 0)),
        lambda _: RedirectConnection(https_port, head_bytes, head_seconds),
    )
    try:
        yield server.port
    finally:
        server.close()


@pytest.mark.parametrize(
    ("host", "target", "https_port", "location"),
    [
        ("shop.test", "/a?b=c", 443, "https://shop.test/a?b=c"),
        ("shop.test:8080", "/", 8443, "https://shop.test:8443/"),
        ("[2001:db8::1]", "/", 443, "https://[2001:db8::1]/"),
        ("[2001:db8::1]:80", "/", 8443, "https://[2001:db8::1]:8443/"),
        ("shop.test", "http://shop.test/x", 443, "https://shop.test/x"),
        ("shop.test", "*", 443, "https://shop.test/"),
    ],
)
async def test_a_request_is_sent_to_https_with_its_path(
    host: str, target: str, https_port: int, location: str
) -> None:
    async with redirecting(https_port) as port, Visitor(port) as visitor:
        method = "OPTIONS" if target == "*" else "POST"
        visitor.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

        reply = await visitor.answer()

        assert (reply.status, reply.header("location")) == (308, location)
        assert reply.header("connection") == "close"
        assert await visitor.rest() == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, id="user in host"),
        pytest.param(b"\x16\x03\x01", 400, id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"y" * 2000, 431, id="huge head"),
    ],
)
async def test_what_is_no_request_is_not_redirected(request_bytes: bytes, status: int) -> None:
    async with redirecting() as port, Visitor(port) as visitor:
        visitor.send(request_bytes)

        assert (await visitor.answer()).status == status


async def test_an_upgrade_is_redirected_too() -> None:
    async with redirecting() as port, Visitor(port) as visitor:
        visitor.send(
            b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )

        assert (await visitor.answer()).header("location") == "https://a.test/ws"


async def test_a_pipelined_request_gets_no_second_answer() -> None:
    async with redirecting() as port, Visitor(port) as visitor:
        visitor.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" * 2)

        assert (await visitor.answer()).status == 308
        assert await visitor.rest() == b""


async def test_a_head_that_does_not_come_ends_the_connection() -> None:
    async with redirecting(head_seconds=0.02) as port, Visitor(port) as visitor:
        visitor.send(b"GET / HT")

        with pytest.raises(asyncio.IncompleteReadError):
            await visitor.answer()
