"""Answers, holds, retries, limits and visitor rules: what happens between two heads."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from helpers.edge_rig import HOST, EdgeRig, chunked, edge_rig, get, post
from helpers.loops import on_both_loops
from helpers.upstream import ScriptedUpstream, SeenRequest, answer
from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.claim import Claim
from moleport_wire.hoody.frames import Code
from moleport_wire.passwords import hash_password

WEBSOCKET = get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def silent(_: SeenRequest) -> None:
    """Leave the answer to the test."""


def answering(raw: bytes) -> ScriptedUpstream:
    return ScriptedUpstream(respond=lambda _: raw)


# Answers


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(answer(b"milk"), b"milk", id="length"),
        pytest.param(answer(b""), b"", id="length 0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"mi", b"lk"),
            b"milk",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"4;q=1\r\nmilk\r\n0\r\nX-Sum: 9\r\n\r\n",
            b"milk",
            id="chunk extension and trailer",
        ),
        pytest.param(answer(b"x" * 300_000), b"x" * 300_000, id="large, by length"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"milk"), b"milk", id="103"
        ),
    ],
)
@pytest.mark.parametrize("cut", ["whole", "pieces"])
async def test_an_answer_passes_whole_however_it_is_cut(raw: bytes, body: bytes, cut: str) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        for _ in range(2):  # the second one comes over the same stream
            visitor.send(get())
            await until(lambda: upstream.requests)
            upstream.streams[0].requests.clear()
            step = len(raw) if cut == "whole" else max(1, len(raw) // 1000)
            for start in range(0, len(raw), step):
                upstream.streams[0].send(raw[start : start + step])

            reply = await visitor.answer()
            if reply.status == 103:
                assert reply.header("link") == "</a>"
                reply = await visitor.answer()

            assert (reply.status, reply.body) == (200, body)
            assert reply.header("trailer") is None
        assert len(upstream.streams) == 1


@pytest.mark.parametrize(
    ("method", "raw", "length"),
    [
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "5", id="HEAD"),
        pytest.param(
            "HEAD",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
            id="HEAD of chunked",
        ),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None, id="204"),
        pytest.param(
            "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "5", id="304"
        ),
    ],
)
async def test_an_answer_without_a_body_leaves_both_connections_usable(
    method: str, raw: bytes, length: str | None
) -> None:
    def respond(seen: SeenRequest) -> bytes:
        return raw if seen.target == "/bodiless" else answer(b"next")

    async with edge_rig(ScriptedUpstream(respond=respond)) as rig, rig.visitor() as visitor:
        visitor.send(get("/bodiless", method=method))
        reply = await visitor.answer(method)
        visitor.send(get("/next"))
        following = await visitor.answer()

        assert reply.header("content-length") == length
        assert following.body == b"next"
        assert len(rig.upstream.streams) == 1


async def test_an_answer_that_lasts_until_the_end_becomes_chunked() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)
        upstream.streams[0].send(b"HTTP/1.1 200 OK\r\n\r\nmi")
        upstream.streams[0].send(b"lk")
        upstream.streams[0].send_eof()

        reply = await visitor.answer()

        assert reply.body == b"milk"
        assert reply.header("transfer-encoding") == "chunked"
        assert upstream.streams[0].reset_code is not None


async def test_bytes_pass_as_they_come() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/events"))
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await visitor.head()

        for text in (b"data: 1\n\n", b"data: 2\n\n"):
            stream.send(text)
            assert await visitor.read(len(text) + 5) == b"9\r\n" + text + b"\r\n"


async def test_fields_of_the_services_connection_stay_with_it() -> None:
    fields = (
        "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        "Upgrade: h2c\r\nX-Stays: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    )
    async with edge_rig(answering(answer(fields=fields))) as rig, rig.visitor() as visitor:
        visitor.send(get())
        reply = await visitor.answer()

        assert [name for name, _ in reply.headers] == [
            "x-stays",
            "set-cookie",
            "set-cookie",
            "content-length",
            "x-request-id",
        ]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x16\x03\x01\x00\x00", id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="length of letters"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="length and chunked",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 140_000 + b"\r\n\r\n", id="huge head"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 600 + b"\r\n", id="too many fields"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", id="gzip, chunked"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", id="gzip"),
        pytest.param(SWITCH, id="switch that nobody asked for"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="switch to nothing"),
    ],
)
async def test_an_answer_that_is_not_http_is_a_bad_gateway(raw: bytes) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)
        for start in range(0, len(raw), 4096):
            upstream.streams[0].send(raw[start : start + 4096])
        reply = await visitor.answer()

        assert reply.status == 502
        assert reply.header("x-moleport-error") == "upstream-malformed"
        assert rig.upstream.streams[0].reset_code == Code.PROTOCOL_ERROR
        assert rig.edge.pool.idle_count == 0


BEGUN = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmilk",
    "large length": b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\nmilk",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmilk\r\n",
}


@pytest.mark.parametrize(
    ("framing", "ending"),
    [
        *((framing, ending) for framing in BEGUN for ending in ("eof", "reset")),
        ("chunked", "garbage"),
    ],
)
async def test_a_truncated_answer_never_looks_complete(framing: str, ending: str) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        stream.send(BEGUN[framing])
        await visitor.head()

        if ending == "eof":
            stream.send_eof()
        elif ending == "reset":
            stream.lose(Code.CANCEL)
        else:
            stream.send(b"zz\r\n")

        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        assert len(upstream.streams) == 1


@on_both_loops
async def test_a_visitor_that_leaves_ends_the_request_of_the_service() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig:
        async with rig.visitor() as visitor:
            visitor.send(get())
            await until(lambda: upstream.requests)
            visitor.break_off()

        await until(lambda: upstream.streams[0].reset_code == Code.CANCEL)
        assert rig.tunnel.active == 0


async def test_a_visitor_that_leaves_in_the_middle_of_an_upload_resets_the_stream() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig:
        async with rig.visitor() as visitor:
            visitor.send(get("/", "Content-Length: 100", method="POST") + b"milk")
            await until(lambda: upstream.streams)
            visitor.send_eof()

            await until(lambda: upstream.streams[0].reset_code is not None)
        assert upstream.requests == []


async def test_a_visitor_that_does_not_read_pauses_the_service_until_it_does() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        visitor.pause_reading()
        stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n")
        sent = 0
        while not stream.is_reading_paused:
            stream.send(b"x" * 65_536)
            sent += 65_536
            await asyncio.sleep(0)
            assert sent < 33_554_432

        visitor.resume_reading()
        await visitor.head()
        await visitor.read(sent)

        await until(lambda: not stream.is_reading_paused)


async def test_an_agent_without_room_pauses_the_upload_until_it_has() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 8", method="POST") + b"milk")
        await until(lambda: upstream.streams)
        stream = upstream.streams[0]
        stream.receiver.stream_pause_writing()
        (connection,) = rig.edge.connections
        assert not connection._transport.is_reading()

        stream.receiver.stream_resume_writing()
        visitor.send(b"milk")

        await until(lambda: upstream.requests)
        assert upstream.requests[0].body == b"milkmilk"


@pytest.mark.parametrize("leave", [Visitor.send_eof, Visitor.break_off], ids=["end", "reset"])
async def test_a_visitor_that_leaves_while_its_upload_waits_for_room_resets_the_stream(
    leave: Callable[[Visitor], None],
) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 100", method="POST") + b"milk")
        await until(lambda: upstream.streams)
        stream = upstream.streams[0]
        stream.receiver.stream_pause_writing()
        visitor.send(b"more milk")
        leave(visitor)

        await until(lambda: stream.reset_code is not None)
        assert rig.tunnel.active == 0


async def test_an_early_answer_passes_and_ends_the_connection_in_order() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 1000000", method="POST") + b"milk")
        await until(lambda: upstream.streams)

        upstream.streams[0].send(answer(b"too big", status="413 Content Too Large"))
        reply = await visitor.answer()
        visitor.send(b"x" * 500_000)

        assert (reply.status, reply.body) == (413, b"too big")
        assert upstream.streams[0].reset_code == Code.CANCEL
        assert rig.edge.pool.idle_count == 0
        visitor.send_eof()
        assert await visitor.rest() == b""


async def test_a_visitor_that_uploads_on_behind_an_early_answer_is_cut_in_the_end() -> None:
    async with edge_rig(body_bytes=10) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 100000000", method="POST"))
        assert (await visitor.answer()).status == 413

        async def send_on() -> None:
            while True:
                visitor.send(b"x" * 1_000_000)
                await visitor.drain()

        with pytest.raises(ConnectionError):
            await send_on()


async def test_expect_continue_is_answered_when_the_service_is_reached() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        assert (await visitor.head()).status == 100
        visitor.send(b"milk")

        assert (await visitor.answer()).status == 200
        assert rig.upstream.requests[0].body == b"milk"
        assert rig.upstream.requests[0].header("expect") is None


async def test_expect_continue_of_a_refused_request_is_not_answered() -> None:
    async with edge_rig(body_bytes=10) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 400", "Expect: 100-continue", method="POST"))

        assert (await visitor.head()).status == 413


# WebSocket and other upgrades


@on_both_loops
async def test_an_accepted_upgrade_relays_bytes_both_ways_until_both_ended() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(WEBSOCKET)
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        stream.is_raw = True
        stream.send(SWITCH + b"early")

        head = await visitor.head()
        assert (head.status, head.header("upgrade")) == (101, "websocket")
        assert await visitor.read(5) == b"early"
        visitor.send(b"\x81\x00")
        await until(lambda: stream.written.endswith(b"\x81\x00"))
        stream.send(b"\x88\x00")
        assert await visitor.read(2) == b"\x88\x00"

        visitor.send_eof()
        await until(lambda: stream.has_eof)
        stream.send(b"last")
        stream.send_eof()
        assert await visitor.rest() == b"last"
        await until(lambda: not rig.edge.connections)
        assert rig.tunnel.active == 0
        assert rig.tunnel.bytes_in == 2


async def test_an_upgrade_that_the_service_ends_first_ends_with_the_visitor() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(WEBSOCKET)
        await until(lambda: upstream.requests)
        upstream.streams[0].is_raw = True
        upstream.streams[0].send(SWITCH)
        await visitor.head()

        upstream.streams[0].send_eof()
        assert await visitor.rest() == b""
        visitor.send_eof()

        await until(lambda: not rig.edge.connections)
        assert rig.tunnel.active == 0


@pytest.mark.parametrize("size", [3, 30_000])
async def test_bytes_sent_before_the_service_agreed_arrive_in_order(size: int) -> None:
    early = bytes(range(256)) * (size // 256 + 1)
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(WEBSOCKET + early)
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        stream.is_raw = True
        stream.written.clear()

        stream.send(SWITCH)

        await until(lambda: len(stream.written) >= len(early))
        assert stream.written == early


async def test_a_declined_upgrade_goes_on_as_http() -> None:
    raw = answer(b"no", status="426 Upgrade Required")
    async with edge_rig(answering(raw)) as rig, rig.visitor() as visitor:
        for _ in range(2):
            visitor.send(WEBSOCKET)
            reply = await visitor.answer()

            assert (reply.status, reply.body) == (426, b"no")


async def test_an_upgrade_takes_no_pooled_stream_and_its_own_is_not_pooled() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get())
        await visitor.answer()
        visitor.send(WEBSOCKET)
        await visitor.answer()

        assert len(rig.upstream.streams) == 2


async def test_a_reset_of_an_upgraded_stream_resets_the_visitor() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(WEBSOCKET)
        await until(lambda: upstream.requests)
        upstream.streams[0].send(SWITCH)
        await visitor.head()

        upstream.streams[0].lose(Code.CANCEL)

        with pytest.raises(ConnectionResetError):
            await visitor.rest()


async def test_a_visitor_that_leaves_an_upgraded_connection_resets_the_stream() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig:
        async with rig.visitor() as visitor:
            visitor.send(WEBSOCKET)
            await until(lambda: upstream.requests)
            upstream.streams[0].send(SWITCH)
            await visitor.head()
            visitor.break_off()

        await until(lambda: upstream.streams[0].reset_code is not None)


async def test_an_upgraded_visitor_that_does_not_read_pauses_the_service() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(WEBSOCKET)
        await until(lambda: upstream.requests)
        stream = upstream.streams[0]
        stream.send(SWITCH)
        await visitor.head()
        visitor.pause_reading()
        sent = 0
        while not stream.is_reading_paused:
            stream.send(b"x" * 65_536)
            sent += 65_536
            await asyncio.sleep(0)
            assert sent < 33_554_432

        visitor.resume_reading()
        await visitor.read(sent)

        await until(lambda: not stream.is_reading_paused)


# Hold and retry


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_meets_an_absent_agent_waits_for_it(method: str) -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        rig.lose_agent()
        visitor.send(post(b"milk", method=method))
        await until(lambda: rig.registry.holds.count == 1)

        upstream = rig.return_agent()

        assert (await visitor.answer()).status == 200
        assert upstream.requests[0].body == b"milk"
        assert rig.registry.holds.count == 0


async def test_a_connection_is_as_good_as_new_after_a_hold() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        rig.lose_agent()
        visitor.send(get())
        await until(lambda: rig.registry.holds.count == 1)
        rig.return_agent()
        assert (await visitor.answer()).status == 200

        visitor.send(get("/next"))

        assert (await visitor.answer()).status == 200


async def test_a_held_body_is_not_read_beyond_one_read() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        rig.lose_agent()
        visitor.send(get("/", "Content-Length: 8", method="PUT") + b"milk")
        await until(lambda: rig.registry.holds.count == 1)
        (connection,) = rig.edge.connections

        assert not connection._transport.is_reading()
        upstream = rig.return_agent()
        visitor.send(b"milk")

        assert (await visitor.answer()).status == 200
        assert upstream.requests[0].body == b"milkmilk"


def held_count(rig: EdgeRig, result: str) -> float:
    return rig.count("moleport_server_held_total", protocol="http", result=result)


async def test_a_held_visitor_that_leaves_is_forgotten() -> None:
    async with edge_rig() as rig:
        rig.lose_agent()
        async with rig.visitor() as visitor:
            visitor.send(get())
            await until(lambda: rig.registry.holds.count == 1)
            visitor.break_off()

        await until(lambda: rig.registry.holds.count == 0)
        assert rig.tunnel.active == 0
        assert held_count(rig, "abandoned") == 1


async def test_a_hold_ends_with_the_lease() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        rig.lose_agent()
        visitor.send(get())
        await until(lambda: rig.registry.holds.count == 1)

        rig.clock.advance(61)
        rig.registry._leases.end_due()

        reply = await visitor.answer()
        assert reply.status == 404
        assert reply.header("x-moleport-error") == "tunnel-not-found"
        assert held_count(rig, "expired") == 1


async def test_a_full_hold_answers_at_once() -> None:
    async with (
        edge_rig(registry={"hold_per_tunnel": 1}) as rig,
        rig.visitor() as held,
        rig.visitor() as visitor,
    ):
        rig.lose_agent()
        held.send(get())
        await until(lambda: rig.registry.holds.count == 1)
        visitor.send(get())

        reply = await visitor.answer()

        assert reply.status == 503
        assert reply.header("retry-after") == "5"
        assert reply.header("x-moleport-error") == "agent-away"
        assert held_count(rig, "refused") == 1


async def test_nobody_waits_for_an_agent_that_said_goodbye() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        rig.lose_agent(is_clean=True)
        visitor.send(get())

        reply = await visitor.answer()

        assert (reply.status, reply.header("x-moleport-error")) == (503, "agent-away")


async def test_a_goodbye_ends_the_hold_of_those_who_wait() -> None:
    async with edge_rig(ScriptedUpstream(respond=silent)) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: rig.upstream.requests)

        rig.lose_agent(is_clean=True)

        assert (await visitor.answer()).status == 503


@pytest.mark.parametrize(
    ("request_bytes", "is_retried"),
    [
        pytest.param(get(), True, id="GET"),
        pytest.param(get(method="OPTIONS"), True, id="OPTIONS"),
        pytest.param(get(method="DELETE"), True, id="DELETE"),
        pytest.param(post(b"x" * 16_384, method="PUT"), True, id="PUT of 16 KiB"),
        pytest.param(post(b"x" * 16_385, method="PUT"), False, id="PUT of more"),
        pytest.param(
            get("/", "Transfer-Encoding: chunked", method="PUT") + chunked(b"x" * 9000),
            True,
            id="PUT in chunks",
        ),
        pytest.param(post(b"milk"), False, id="POST"),
        pytest.param(get(method="POST"), False, id="POST without a body"),
        pytest.param(post(b"milk", method="PATCH"), False, id="PATCH"),
        pytest.param(WEBSOCKET, False, id="WebSocket"),
    ],
)
@pytest.mark.parametrize("loss", ["agent", "service"])
async def test_only_what_is_safe_to_send_again_is_sent_again(
    request_bytes: bytes, is_retried: bool, loss: str
) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(request_bytes)
        await until(lambda: upstream.requests)
        first = upstream.requests[0]

        upstream.respond = lambda _: answer()
        if loss == "agent":
            rig.lose_agent()
            upstream = rig.return_agent()
        else:
            upstream.streams[0].send_eof()
        reply = await visitor.answer()

        if is_retried:
            again = rig.upstream.requests[-1]
            assert (reply.status, again.body) == (200, first.body)
            assert again.header("x-request-id") == first.header("x-request-id")
            assert rig.count("moleport_server_request_retries_total") == 1
        else:
            assert reply.status == (503 if loss == "agent" else 502)
            assert rig.upstream.requests in ([], [first])


async def test_a_body_that_is_still_coming_is_not_sent_again() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Content-Length: 8", method="PUT") + b"milk")
        await until(lambda: upstream.streams)

        rig.lose_agent()

        assert (await visitor.answer()).status == 503


async def test_a_request_whose_answer_began_is_not_sent_again() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)
        upstream.streams[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmi")
        await visitor.head()

        rig.lose_agent()

        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        assert rig.registry.holds.count == 0


async def test_a_service_that_always_hangs_up_is_asked_three_times() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        for attempt in range(3):
            await until(lambda: len(upstream.streams) > attempt)  # noqa: B023 - called at once
            upstream.streams[attempt].send_eof()

        reply = await visitor.answer()

        assert (reply.status, reply.header("x-moleport-error")) == (502, "upstream-lost")
        assert len(upstream.streams) == 3


async def test_agents_that_die_of_a_request_do_not_die_of_it_for_ever() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        for _ in range(8):
            await until(lambda: rig.upstream.requests)
            rig.lose_agent()
            rig.return_agent(ScriptedUpstream(respond=silent))

        assert (await visitor.answer()).status == 503


async def test_a_stale_pooled_stream_costs_the_visitor_nothing() -> None:
    upstream = ScriptedUpstream()
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get("/1"))
        await visitor.answer()
        upstream.respond = lambda seen: answer() if len(upstream.streams) > 1 else None
        visitor.send(get("/2"))
        await until(lambda: len(upstream.requests) == 2)

        upstream.streams[0].send_eof()

        assert (await visitor.answer()).status == 200
        assert len(upstream.streams) == 2


@pytest.mark.parametrize(
    ("code", "status", "error", "retry_after"),
    [
        (Code.REFUSED, 502, "upstream-refused", None),
        (Code.CALM_DOWN, 503, "busy", "1"),
    ],
    ids=["refused", "calm down"],
)
async def test_a_stream_that_the_agent_refuses_is_explained(
    code: Code, status: int, error: str, retry_after: str | None
) -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)

        upstream.streams[0].lose(code, "Connection refused")
        reply = await visitor.answer()

        assert reply.status == status
        assert reply.header("x-moleport-error") == error
        assert reply.header("retry-after") == retry_after


async def test_a_session_without_room_for_streams_is_busy() -> None:
    upstream = ScriptedUpstream(refusal=UpstreamBusy("too many streams"))
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        reply = await visitor.answer()

        assert (reply.status, reply.header("retry-after")) == (503, "1")


async def test_a_session_that_just_ended_is_held_for() -> None:
    upstream = ScriptedUpstream(refusal=NoSession("gone"))
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: rig.registry.holds.count == 1)
        rig.lose_agent()

        rig.return_agent()

        assert (await visitor.answer()).status == 200


# Limits


async def test_a_body_above_the_limit_is_refused_by_its_length() -> None:
    async with edge_rig(body_bytes=4) as rig, rig.visitor() as visitor:
        visitor.send(post(b"milk!"))
        reply = await visitor.answer()

        assert (reply.status, reply.header("x-moleport-error")) == (413, "body-too-large")
        assert rig.upstream.streams == []


async def test_a_chunked_body_is_counted() -> None:
    async with edge_rig(body_bytes=4) as rig, rig.visitor() as visitor:
        visitor.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nmilk\r\n")
        await until(lambda: rig.upstream.streams)
        visitor.send(chunked(b"!"))
        reply = await visitor.answer()

        assert reply.status == 413
        assert rig.upstream.requests == []
        assert rig.upstream.streams[0].reset_code is not None


async def test_requests_in_flight_are_limited_per_tunnel() -> None:
    upstream = ScriptedUpstream(respond=silent)
    async with (
        edge_rig(upstream, requests_per_tunnel=1) as rig,
        rig.visitor() as first,
        rig.visitor() as second,
    ):
        first.send(get())
        await until(lambda: upstream.requests)
        second.send(get())

        reply = await second.answer()
        assert (reply.status, reply.header("x-moleport-error")) == (503, "busy")
        upstream.streams[0].send(answer())
        assert (await first.answer()).status == 200
        assert rig.tunnel.active == 0


@pytest.mark.parametrize("limit", ["requests_per_second", "address_requests_per_second"])
async def test_requests_above_the_rate_are_told_when_to_come_back(limit: str) -> None:
    settings: dict[str, Any] = {limit: 1.0}
    async with edge_rig(**settings) as rig, rig.visitor() as visitor:
        visitor.send(get())
        assert (await visitor.answer()).status == 200

    async with edge_rig(**settings) as rig:
        replies = []
        for _ in range(2):
            async with rig.visitor() as visitor:
                visitor.send(get())
                replies.append(await visitor.answer())

        assert [reply.status for reply in replies] == [200, 429]
        assert replies[1].header("retry-after") == "2"
        rig.clock.advance(5)
        async with rig.visitor() as visitor:
            visitor.send(get())
            assert (await visitor.answer()).status == 200


# Visitor rules

PASSWORD = hash_password("secret", b"0123456789abcdef")


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


GUARDED = Claim(
    protocol=TunnelProtocol.HTTP, subdomain="shop", basic_auth=(("ann", str(PASSWORD)),)
)


async def test_a_tunnel_with_a_password_asks_for_it() -> None:
    async with edge_rig(claim=GUARDED) as rig, rig.visitor() as visitor:
        visitor.send(get())
        reply = await visitor.answer()

        assert reply.status == 401
        assert (reply.header("www-authenticate") or "").startswith("Basic realm=")
        assert rig.upstream.streams == []


async def test_the_right_password_opens_and_is_not_passed_on() -> None:
    async with edge_rig(claim=GUARDED) as rig, rig.visitor() as visitor:
        for _ in range(2):  # verified, then remembered
            visitor.send(get("/", basic("ann", "secret")))
            assert (await visitor.answer()).status == 200

        assert [r.header("authorization") for r in rig.upstream.requests] == [None, None]


async def test_a_body_that_comes_while_the_password_is_checked_is_kept() -> None:
    async with edge_rig(claim=GUARDED) as rig, rig.visitor() as visitor:
        visitor.send(post(b"milk", basic("ann", "secret")))

        assert (await visitor.answer()).status == 200
        assert rig.upstream.requests[0].body == b"milk"
        visitor.send(get("/next", basic("ann", "secret")))
        assert (await visitor.answer()).status == 200


async def test_a_wrong_password_is_asked_again() -> None:
    async with edge_rig(claim=GUARDED) as rig, rig.visitor() as visitor:
        visitor.send(get("/", basic("ann", "guess")))

        assert (await visitor.answer()).status == 401
        assert rig.upstream.streams == []


async def test_a_visitor_that_leaves_while_its_password_is_checked_sends_nothing() -> None:
    async with edge_rig(claim=GUARDED) as rig:
        async with rig.visitor() as visitor:
            visitor.send(get("/", basic("ann", "secret")))
            await until(lambda: rig.base.tasks.count)
            visitor.break_off()
            await until(lambda: not rig.edge.connections)
        await until(lambda: not rig.base.tasks.count)

        assert rig.upstream.streams == []


async def test_a_server_that_ends_checks_no_more_passwords() -> None:
    async with edge_rig(claim=GUARDED) as rig, rig.visitor() as visitor:
        await rig.base.tasks.aclose()
        visitor.send(get("/", basic("ann", "secret")))

        assert (await visitor.answer()).status == 503


async def test_an_address_outside_of_the_allowed_networks_is_refused() -> None:
    claim = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop", allowed_cidrs=("192.0.2.0/24",))
    async with edge_rig(claim=claim) as rig, rig.visitor() as visitor:
        visitor.send(get())
        reply = await visitor.answer()

        assert (reply.status, reply.header("x-moleport-error")) == (403, "address-denied")
        assert rig.count("moleport_server_policy_denied_total", rule="address") == 1


async def test_an_address_inside_of_the_allowed_networks_passes() -> None:
    claim = Claim(protocol=TunnelProtocol.HTTP, subdomain="shop", allowed_cidrs=("127.0.0.0/8",))
    async with edge_rig(claim=claim) as rig, rig.visitor() as visitor:
        visitor.send(get())

        assert (await visitor.answer()).status == 200


# What is told about it


async def test_a_finished_request_is_captured_reported_published_and_logged() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        watcher = rig.registry.events.watch()
        visitor.send(post(b"milk", path="/order?token=s3cret"))
        await visitor.answer()

        (recorded,) = rig.captures.list(rig.tunnel.id, 10)
        capture = recorded.capture
        assert (capture.method, capture.status) == (b"POST", 200)
        assert (capture.request_body, capture.response_body) == (b"milk", b"hello")
        assert (capture.request_bytes, capture.response_bytes) == (4, 5)
        assert capture.peer == visitor.address
        assert rig.upstream.reports == [(b"POST", b"/order?token=s3cret", 200)]
        async with asyncio.timeout(20):
            event = await anext(aiter(watcher))
        assert event.kind == "request.finished"
        assert "s3cret" not in json.dumps(event.fields)
        assert event.fields["status"] == 200
        (line,) = rig.logged
        assert line.__dict__["host"] == HOST
        assert "s3cret" not in line.__dict__["path"]
        assert (rig.tunnel.request_count, rig.tunnel.bytes_in, rig.tunnel.bytes_out) == (1, 4, 5)


async def test_captured_bodies_are_bounded() -> None:
    upstream = answering(answer(b"y" * 5000))
    async with edge_rig(upstream, capture_body_bytes=1000) as rig, rig.visitor() as visitor:
        visitor.send(post(b"x" * 5000))
        await visitor.answer()

        capture = rig.captures.list(rig.tunnel.id, 1)[0].capture
        assert (capture.request_body, capture.response_body) == (b"x" * 1000, b"y" * 1000)
        assert capture.request_truncated
        assert capture.response_truncated


async def test_nothing_is_captured_when_it_is_off() -> None:
    async with edge_rig(captures=False) as rig, rig.visitor() as visitor:
        watcher = rig.registry.events.watch()
        visitor.send(post(b"milk"))
        await visitor.answer()

        assert rig.captures.list(rig.tunnel.id, 10) == []
        async with asyncio.timeout(20):
            assert (await anext(aiter(watcher))).fields["request_id"] == ""


async def test_a_request_of_an_unknown_name_is_logged_too() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get(host="nobody.tunnels.test"))
        await visitor.answer()

        (line,) = rig.logged
        assert (line.__dict__["status"], line.__dict__["tunnel"]) == (404, "")


async def test_captures_of_stalled_visitors_hold_a_bounded_amount() -> None:
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream, stalled_capture_bytes=100_000) as rig:
        exchanges = []
        async with contextlib.AsyncExitStack() as stack:
            for number in range(3):
                visitor = await stack.enter_async_context(rig.visitor())
                visitor.send(get())
                await until(partial(_has_requests, rig, number + 1))
                (connection,) = [
                    c for c in rig.edge.connections if c.is_busy and c._current not in exchanges
                ]
                exchange = connection._current
                assert exchange is not None
                exchanges.append(exchange)
                stream = rig.upstream.streams[number]
                stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
                connection.pause_writing()
                connection.resume_writing()

            held = [sum(map(len, exchange.response_kept)) for exchange in exchanges]
            assert held == [50_000, 50_000, 0]
            assert rig.edge.stalled_capture_bytes == 100_000
        await until(lambda: not rig.edge.connections)

        assert rig.edge.stalled_capture_bytes == 0


@pytest.mark.parametrize("is_known", [False, True], ids=["a new head", "a known head"])
@pytest.mark.parametrize("first", [100_000, 50_000])
async def test_a_capture_keeps_no_more_of_a_piece_than_it_has_room_for(
    first: int, is_known: bool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        for number in range(1 + is_known):
            visitor.send(get())
            await until(partial(_has_requests, rig, number + 1))
            (connection,) = rig.edge.connections
            exchange = connection._current
            assert exchange is not None
            (stream,) = rig.upstream.streams
            stream.send(head + b"x" * first)
            stream.send(b"x" * 50_000)

            kept = sum(map(len, exchange.response_kept))
            assert kept == rig.edge.settings.capture_body_bytes == 65_536
            stream.send(b"x" * (150_000 - first))
            assert len((await visitor.answer()).body) == 200_000


def _has_requests(rig: EdgeRig, count: int) -> bool:
    return len(rig.upstream.requests) == count
