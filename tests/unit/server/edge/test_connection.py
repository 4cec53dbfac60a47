"""Parsing, framing and header rules of the edge, over real connections."""

import asyncio
import random
from ipaddress import ip_network
from typing import cast

import pytest

from helpers.edge_rig import HOST, chunked, edge_rig, get, post
from helpers.garbage import alive, without_collector
from helpers.sink import Sink
from helpers.upstream import ScriptedUpstream, answer
from helpers.waiting import until
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.edge.connection import MAX_PIPELINED, EdgeConnection
from moleport_server.registry.claim import Claim


async def test_a_request_reaches_the_service_and_its_answer_the_visitor() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/menu?x=1"))

        reply = await visitor.answer()

        assert (reply.status, reply.body) == (200, b"hello")
        assert rig.upstream.requests[0].target == "/menu?x=1"


async def test_a_connection_that_ended_is_freed_without_the_garbage_collector() -> None:
    with without_collector():
        async with edge_rig() as rig:
            async with rig.visitor() as visitor:
                visitor.send(get("/", "Connection: close"))
                assert (await visitor.answer()).status == 200
                assert await visitor.rest() == b""

            await until(lambda: alive(EdgeConnection) == 0)


# Requests that are served, however they are cut.

SERVED = [
    pytest.param(get(), "GET", b"", id="bare"),
    pytest.param(get("/a/b?c=d&e=%20"), "GET", b"", id="query"),
    pytest.param(get(host=HOST.upper()), "GET", b"", id="host in capitals"),
    pytest.param(get(host=f"{HOST}:8443"), "GET", b"", id="host with port"),
    pytest.param(get(host=f"{HOST}."), "GET", b"", id="host with trailing dot"),
    pytest.param(get(f"http://{HOST}/x"), "GET", b"", id="absolute form"),
    pytest.param(get("*", method="OPTIONS"), "OPTIONS", b"", id="asterisk form"),
    pytest.param(post(b"milk"), "POST", b"milk", id="length"),
    pytest.param(post(b""), "POST", b"", id="length 0"),
    pytest.param(
        get("/", "Transfer-Encoding: chunked", method="POST") + chunked(b"mi", b"lk"),
        "POST",
        b"milk",
        id="chunked",
    ),
    pytest.param(
        get("/", "Transfer-Encoding: Chunked", method="PUT")
        + b"4;ext=1\r\nmilk\r\n0\r\nX-Trailer: 1\r\n\r\n",
        "PUT",
        b"milk",
        id="chunk extension and trailer",
    ),
    pytest.param(
        get("/", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAM"),
        "GET",
        b"",
        id="h2c without a body",
    ),
    pytest.param(
        post(b"milk", "Connection: Upgrade", "Upgrade: h2c"), "POST", b"milk", id="h2c and length"
    ),
    pytest.param(
        get("/", "Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", method="POST")
        + chunked(b"mi", b"lk"),
        "POST",
        b"milk",
        id="h2c and chunked",
    ),
    pytest.param(b"\r\n" + get(), "GET", b"", id="empty line before"),
]


@pytest.mark.parametrize("cut", ["whole", "bytes", "pieces"])
@pytest.mark.parametrize(("request_bytes", "method", "body"), SERVED)
async def test_a_legal_request_is_served_however_it_is_cut(
    request_bytes: bytes, method: str, body: bytes, cut: str
) -> None:
    async with edge_rig() as rig:
        visitor = rig.edge.connection()
        transport = Sink()
        visitor.connection_made(transport)
        dice = random.Random(len(request_bytes))

        # Twice, so that the framing behind the first is checked as well.
        for piece in _cut(request_bytes * 2, cut, dice):
            visitor.data_received(piece)
        await until(lambda: len(rig.upstream.requests) == 2)

        for seen in rig.upstream.requests:
            assert (seen.method, seen.body) == (method, body)
            assert seen.all("upgrade") == seen.all("http2-settings") == []
            assert seen.all("x-trailer") == []
        await until(lambda: transport.written.count(b"HTTP/1.1 200 OK\r\n") == 2)
        visitor.connection_lost(None)


def _cut(data: bytes, how: str, dice: random.Random) -> list[bytes]:
    if how == "whole":
        return [data]
    pieces = []
    position = 0
    while position < len(data):
        size = 1 if how == "bytes" else dice.randint(1, 40)
        pieces.append(data[position : position + size])
        position += size
    return pieces


# Requests that are refused: each of them is read differently by some server.

_CL_TE = ("Content-Length: 4", "Transfer-Encoding: chunked")

REFUSED = [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
    pytest.param(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n".encode(), 400, id="two hosts"),
    pytest.param(get(host="a@b.test"), 400, id="user in host"),
    pytest.param(get(host=""), 400, id="empty host"),
    pytest.param(b"GET /\r\n\r\n", 400, id="HTTP/0.9"),
    pytest.param(f"GET / HTTP/0.9\r\nHost: {HOST}\r\n\r\n".encode(), 400, id="HTTP/0.9 by number"),
    pytest.param(f"GET / HTTP/2.0\r\nHost: {HOST}\r\n\r\n".encode(), 505, id="HTTP/2.0"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2 preface"),
    pytest.param(
        f"POST / HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + chunked(b"milk"),
        400,
        id="chunked in HTTP/1.0",
    ),
    pytest.param(get("/", *_CL_TE, method="POST") + chunked(b"milk"), 400, id="CL.TE"),
    pytest.param(get("/", *_CL_TE[::-1], method="POST") + chunked(b"milk"), 400, id="TE.CL"),
    pytest.param(
        get("/", "Transfer-Encoding: gzip, chunked", method="POST") + chunked(b"milk"),
        400,
        id="gzip, chunked",
    ),
    pytest.param(
        get("/", "Transfer-Encoding: chunked, chunked", method="POST") + chunked(b"milk"),
        400,
        id="chunked twice",
    ),
    pytest.param(
        get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", method="POST")
        + chunked(b"milk"),
        400,
        id="two TE fields",
    ),
    pytest.param(
        get("/", "Transfer-Encoding: identity", method="POST") + b"milk", 400, id="TE identity"
    ),
    pytest.param(
        get("/", "Transfer-Encoding: xchunked", method="POST") + chunked(b"milk"), 400, id="xchunked"
    ),
    pytest.param(
        get("/", "Transfer-Encoding : chunked", method="POST") + chunked(b"milk"),
        400,
        id="space before colon",
    ),
    pytest.param(
        get("/", "Transfer-Encoding:\x0bchunked", method="POST") + chunked(b"milk"), 400, id="vertical tab"
    ),
    pytest.param(
        get("/", "Content-Length: 4", "Content-Length: 4", method="POST") + b"milk", 400, id="two lengths"
    ),
    pytest.param(
        get("/", "Content-Length: 4", "Content-Length: 5", method="POST") + b"milk",
        400,
        id="two different lengths",
    ),
    pytest.param(get("/", "Content-Length: 4, 4", method="POST") + b"milk", 400, id="list of lengths"),
    pytest.param(get("/", "Content-Length: +4", method="POST") + b"milk", 400, id="signed length"),
    pytest.param(get("/", "Content-Length: -1", method="POST"), 400, id="negative length"),
    pytest.param(get("/", "Content-Length: 0x4", method="POST") + b"milk", 400, id="hexadecimal length"),
    pytest.param(
        get("/", "Content-Length: 99999999999999999999999", method="POST"), 400, id="length of 77 bits"
    ),
    pytest.param(f"GET / HTTP/1.1\nHost: {HOST}\n\n".encode(), 400, id="bare LF"),
    pytest.param(get("/", "X: a\r\n Transfer-Encoding: chunked"), 400, id="folded line"),
    pytest.param(get("/", "X: a\0b"), 400, id="NUL in a value"),
    pytest.param(get("/", "X: a\rb"), 400, id="bare CR in a value"),
    pytest.param(get("/", "X y: a"), 400, id="space in a name"),
    pytest.param(get("/", ": a"), 400, id="no name"),
    pytest.param(get("/a b"), 400, id="space in the target"),
    pytest.param(get("http://other.test/"), 400, id="absolute form of another host"),
    pytest.param(get(f"http://x@{HOST}/"), 400, id="absolute form with a user"),
    pytest.param(get("shop"), 400, id="target without a slash"),
    pytest.param(get("*"), 400, id="asterisk without OPTIONS"),
    pytest.param(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode(), 405, id="CONNECT"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400, id="TLS"),
    pytest.param(bytes(range(256)), 400, id="every byte"),
    pytest.param(get("/", "X: " + "y" * 70_000), 431, id="head of 70 KB"),
    pytest.param(get("/" + "y" * 70_000), 431, id="target of 70 KB"),
    pytest.param(get("/", *[f"X-{i}: 1" for i in range(220)]), 431, id="220 fields"),
    pytest.param(
        post(b"milk", "Connection: Upgrade", "Upgrade: websocket"), 400, id="WebSocket with a body"
    ),
]  # fmt: skip


@pytest.mark.parametrize("cut", ["whole", "pieces"])
@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(
    request_bytes: bytes, status: int, cut: str
) -> None:
    async with edge_rig() as rig:
        connection = rig.edge.connection()
        transport = Sink()
        connection.connection_made(transport)
        smuggled = get("/smuggled")
        dice = random.Random(len(request_bytes))

        for piece in _cut(request_bytes + smuggled, cut, dice):
            if transport.is_closed:
                break
            connection.data_received(piece)

        assert transport.written.startswith(b"HTTP/1.1 %d " % status)
        assert transport.written.count(b"x-moleport-error: ") == 1
        assert b"\r\nconnection: close\r\n" in transport.written
        assert rig.upstream.streams == []
        connection.connection_lost(None)


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
async def test_a_refused_request_behind_a_served_one_ends_the_connection(
    request_bytes: bytes, status: int
) -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/first"))
        assert (await visitor.answer()).status == 200

        visitor.send(request_bytes)
        reply = await visitor.answer()

        assert reply.status == status
        visitor.send_eof()
        assert await visitor.rest() == b""
        assert [seen.target for seen in rig.upstream.requests] == ["/first"]


async def test_a_bad_chunk_never_completes_the_request_of_the_service() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nmilk\r\n")
        await until(lambda: rig.upstream.streams)

        visitor.send(b"zz\r\n")
        reply = await visitor.answer()

        assert reply.status == 400
        stream = rig.upstream.streams[0]
        assert stream.requests == []
        assert stream.reset_code is not None


@pytest.mark.parametrize("count", [2, MAX_PIPELINED, 5 * MAX_PIPELINED])
async def test_pipelined_requests_are_answered_in_order(count: int) -> None:
    upstream = ScriptedUpstream(respond=lambda seen: answer(seen.target.encode()))
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(b"".join(get(f"/{i}", "X-Fill: " + "x" * 300) for i in range(count)))

        bodies = [(await visitor.answer()).body for _ in range(count)]

        assert bodies == [b"/%d" % i for i in range(count)]


async def test_pipelined_requests_are_answered_though_the_visitor_ended_its_side() -> None:
    upstream = ScriptedUpstream(respond=lambda seen: answer(seen.target.encode()))
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/1") + get("/2") + get("/3"))
        visitor.send_eof()

        bodies = [(await visitor.answer()).body for _ in range(3)]

        assert bodies == [b"/1", b"/2", b"/3"]
        assert await visitor.rest() == b""


async def test_garbage_behind_pipelined_requests_does_not_take_their_answers() -> None:
    upstream = ScriptedUpstream(respond=lambda seen: answer(seen.target.encode()))
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/1") + get("/2") + b"\0\0\0\0")

        assert (await visitor.answer()).body == b"/1"
        assert (await visitor.answer()).body == b"/2"
        assert await visitor.rest() == b""


async def test_a_visitor_that_pipelines_without_end_is_not_read() -> None:
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig:
        connection = rig.edge.connection()
        transport = Sink()
        connection.connection_made(transport)

        for _ in range(500):
            connection.data_received(get())

        assert len(connection._waiting) <= MAX_PIPELINED
        assert connection._pause_reasons == 1
        connection.connection_lost(None)


async def test_requests_behind_a_close_are_ignored() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/1", "Connection: close") + get("/2"))

        reply = await visitor.answer()

        assert reply.header("connection") == "close"
        assert await visitor.rest() == b""
        assert len(rig.upstream.requests) == 1


async def test_early_bytes_of_an_upgrade_are_kept_though_reading_is_paused() -> None:
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig:
        connection = rig.edge.connection()
        connection.connection_made(Sink())
        connection.data_received(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        (stream,) = upstream.streams
        stream.is_raw = True
        stream.written.clear()

        connection.data_received(b"early ")
        connection.data_received(b"bytes")
        assert stream.written == b""
        stream.send(switch)
        connection.data_received(b" and late ones")

        assert stream.written == b"early bytes and late ones"
        connection.connection_lost(None)


# HTTP/1.0


async def test_an_http10_visitor_gets_its_answer_and_the_end() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())

        reply = await visitor.answer()

        assert reply.body == b"hello"
        assert reply.header("connection") == "close"
        assert await visitor.rest() == b""


async def test_an_http10_visitor_may_keep_its_connection() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        for _ in range(2):
            visitor.send(
                f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n".encode()
            )
            reply = await visitor.answer()

            assert reply.header("connection") == "keep-alive"


async def test_an_http10_visitor_gets_a_chunked_answer_as_plain_bytes_until_the_end() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"mi", b"lk")
    async with edge_rig(ScriptedUpstream(respond=lambda _: raw)) as rig, rig.visitor() as visitor:
        visitor.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n".encode())

        reply = await visitor.answer()

        assert reply.body == b"milk"
        assert reply.header("transfer-encoding") is None
        assert reply.header("connection") == "close"


async def test_an_http10_visitor_gets_no_interim_answers() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer()
    async with edge_rig(ScriptedUpstream(respond=lambda _: raw)) as rig, rig.visitor() as visitor:
        visitor.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nExpect: 100-continue\r\n\r\n".encode())

        assert (await visitor.head()).status == 200


# What the service sees


async def test_fields_of_the_visitors_connection_stay_with_it() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(
            get(
                "/",
                "Connection: keep-alive, X-Hop",
                "X-Hop: 1",
                "X-Stays: 2",
                "Keep-Alive: timeout=5",
                "TE: trailers",
                "Trailer: X-Sum",
                "Proxy-Authorization: Basic eA==",
                "Proxy-Connection: keep-alive",
                "Forwarded: for=10.0.0.1",
                "X-Real-IP: 10.0.0.1",
                "Upgrade: h2c",
            )
        )
        await visitor.answer()

        (seen,) = rig.upstream.requests
        assert [name for name, _ in seen.headers] == [
            "host",
            "x-stays",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-request-id",
        ]


async def test_fields_keep_their_order_and_spelling() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/", "b-Field: 1", "A-field:  2", "b-Field: 3", "Cookie: a=b; c=d"))
        await visitor.answer()

        written = bytes(rig.upstream.streams[0].written)
        assert b"b-Field: 1\r\nA-field: 2\r\nb-Field: 3\r\nCookie: a=b; c=d\r\n" in written


@pytest.mark.parametrize("is_tls", [True, False], ids=["https", "http"])
async def test_forwarded_fields_of_a_stranger_are_replaced(is_tls: bool) -> None:
    async with edge_rig(is_tls=is_tls) as rig, rig.visitor() as visitor:
        visitor.send(
            get(
                "/",
                "X-Forwarded-For: 10.0.0.1",
                "X-Forwarded-Proto: gopher",
                "X-Forwarded-Host: evil.test",
            )
        )
        await visitor.answer()

        (seen,) = rig.upstream.requests
        assert seen.header("x-forwarded-for") == "127.0.0.1"
        assert seen.header("x-forwarded-proto") == ("https" if is_tls else "http")
        assert seen.header("x-forwarded-host") == HOST


async def test_forwarded_fields_of_a_trusted_proxy_are_believed() -> None:
    async with (
        edge_rig(trusted_proxies=(ip_network("127.0.0.0/8"),)) as rig,
        rig.visitor() as visitor,
    ):
        visitor.send(
            get(
                "/",
                "X-Forwarded-For: 198.51.100.4",
                "X-Forwarded-For: 10.0.0.1",
                "X-Forwarded-Proto: HTTPS",
                "X-Forwarded-Host: shop.example.com",
            )
        )
        await visitor.answer()

        (seen,) = rig.upstream.requests
        assert seen.header("x-forwarded-for") == "198.51.100.4, 10.0.0.1, 127.0.0.1"
        assert seen.header("x-forwarded-proto") == "https"
        assert seen.header("x-forwarded-host") == "shop.example.com"


async def test_nonsense_of_a_trusted_proxy_is_replaced() -> None:
    async with (
        edge_rig(trusted_proxies=(ip_network("127.0.0.0/8"),)) as rig,
        rig.visitor() as visitor,
    ):
        visitor.send(get("/", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a b"))
        await visitor.answer()

        (seen,) = rig.upstream.requests
        assert seen.header("x-forwarded-proto") == "http"
        assert seen.header("x-forwarded-host") == HOST


async def test_a_request_id_of_the_visitor_is_kept_and_one_is_made_otherwise() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/", "X-Request-Id: abc-1"))
        first = await visitor.answer()
        visitor.send(get("/", "X-Request-Id: has space"))
        second = await visitor.answer()

        seen = [request.header("x-request-id") for request in rig.upstream.requests]
        assert seen[0] == first.header("x-request-id") == "abc-1"
        assert seen[1] == second.header("x-request-id")
        assert seen[1] is not None
        assert seen[1].startswith("r-")


async def test_a_request_id_that_the_service_answers_with_stands() -> None:
    raw = answer(fields="X-Request-Id: mine\r\n")
    async with edge_rig(ScriptedUpstream(respond=lambda _: raw)) as rig, rig.visitor() as visitor:
        visitor.send(get())

        assert (await visitor.answer()).header("x-request-id") == "mine"


@pytest.mark.parametrize(
    ("host_header", "seen_host"),
    [(None, f"{HOST}:8443"), ("localhost:3000", "localhost:3000")],
    ids=["preserve", "rewrite"],
)
async def test_the_host_header_follows_the_tunnels_rule(
    host_header: str | None, seen_host: str
) -> None:
    claim = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop", host_header=host_header)
    async with edge_rig(claim=claim) as rig, rig.visitor() as visitor:
        visitor.send(get(host=f"{HOST}:8443"))
        await visitor.answer()

        (seen,) = rig.upstream.requests
        assert seen.header("host") == seen_host
        assert seen.header("x-forwarded-host") == f"{HOST}:8443"


async def test_credentials_pass_when_the_tunnel_does_not_ask_for_them() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Authorization: Bearer abc"))
        await visitor.answer()

        assert rig.upstream.requests[0].header("authorization") == "Bearer abc"


# Routes


async def test_random_bytes_never_break_the_edge() -> None:
    dice = random.Random(20_251)
    seeds = [cast("bytes", param.values[0]) for param in (*SERVED, *REFUSED)]
    async with edge_rig() as rig:
        for _ in range(300):
            data = bytearray(dice.choice(seeds) + dice.choice(seeds))
            for _ in range(dice.randint(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            connection = rig.edge.connection()
            transport = Sink()
            connection.connection_made(transport)
            for piece in _cut(bytes(data[:4000]), dice.choice(["whole", "pieces"]), dice):
                if transport.is_closed:
                    break
                connection.data_received(piece)
            await asyncio.sleep(0)
            connection.connection_lost(None)

        assert rig.edge.connections == set()
        assert rig.tunnel.active == 0
