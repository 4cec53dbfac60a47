"""The front of the control listener: who gets which connection, and who is let in at all."""

import asyncio
from typing import Any, cast

import pytest

from helpers.agent_rig import agent_rig
from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.access.admission import PreAuthGate
from moleport_server.agents.hoody.door import CONNECT_PATH
from moleport_server.edge.front import (
    MAX_HEAD_BYTES,
    MAX_REST_CONNECTIONS,
    Front,
)


def upgrade(*fields: str, path: str = CONNECT_PATH, key: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: control.test", "Connection: Upgrade"]
    lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    if key:
        lines.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    return ("\r\n".join([*lines, *fields]) + "\r\n\r\n").encode()


@pytest.mark.parametrize("cut", ["whole", "bytes"])
async def test_a_request_goes_to_the_rest_application_with_its_body(cut: str) -> None:
    request = b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmilk"
    async with agent_rig() as rig, Visitor(rig.port) as visitor:
        for _ in range(2):  # the connection stays with it
            for piece in [request] if cut == "whole" else [bytes([b]) for b in request]:
                visitor.send(piece)
                await visitor.drain()

            assert (await visitor.answer()).body == b"POST /api/x milk"
        assert rig.gate.waiting == 0


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(upgrade(path="/api/other"), id="another path"),
        pytest.param(
            f"GET {CONNECT_PATH} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), id="without an upgrade"
        ),
        pytest.param(
            f"POST {CONNECT_PATH} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".encode(),
            id="POST",
        ),
    ],
)
async def test_what_is_no_upgrade_of_the_tunnel_path_goes_to_the_rest_application(
    request_bytes: bytes,
) -> None:
    async with agent_rig() as rig, Visitor(rig.port) as visitor:
        visitor.send(request_bytes)

        assert (await visitor.answer()).status == 200


async def test_a_malformed_upgrade_gives_its_place_back() -> None:
    async with agent_rig() as rig:
        for _ in range(3):
            async with Visitor(rig.port) as visitor:
                visitor.send(upgrade("Sec-WebSocket-Protocol: hoody-tunnel.v2", key=False))
                await visitor.rest()

        await until(lambda: rig.gate.waiting == 0)


async def test_an_agent_that_leaves_without_a_word_gives_its_place_back() -> None:
    async with agent_rig() as rig:
        async with rig.driver():
            assert rig.gate.waiting == 1

        await until(lambda: rig.gate.waiting == 0)


async def test_a_connection_too_many_is_dropped_at_once() -> None:
    async with (
        agent_rig(gate=PreAuthGate(per_address=1)) as rig,
        Visitor(rig.port) as first,
        Visitor(rig.port) as second,
    ):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await second.answer()
        first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await first.answer()).status == 200


async def test_a_head_that_does_not_come_ends_the_connection() -> None:
    async with agent_rig(first_frame_seconds=0.05) as rig, Visitor(rig.port) as visitor:
        visitor.send(b"GET / HT")

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.answer()
        await until(lambda: rig.gate.waiting == 0)


async def test_a_huge_head_is_refused() -> None:
    async with agent_rig() as rig, Visitor(rig.port) as visitor:
        visitor.send(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES)

        assert (await visitor.answer()).status == 431


async def test_closing_ends_those_who_have_not_asked_for_anything() -> None:
    async with agent_rig() as rig, Visitor(rig.port) as visitor:
        await until(lambda: rig.front.connections)

        rig.front.close()

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.answer()


@pytest.mark.parametrize("body", ["", "milk", "m" * 1_000_000], ids=["none", "short", "long"])
async def test_who_calls_before_the_rest_application_is_open_is_answered_when_it_is(
    body: str,
) -> None:
    async with agent_rig(is_rest_open=False) as rig, Visitor(rig.port) as visitor:
        head = f"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        visitor.send((head + body).encode())
        await until(lambda: any(c.waits_for_rest for c in rig.front.connections))
        assert rig.gate.waiting == 1
        async with rig.driver() as agent:  # the doors are open already
            await agent.greet()

        rig.front.open_rest(rig.rest)

        assert (await visitor.answer()).body == f"POST /api/x {body}".encode()
        assert rig.gate.waiting == 0


async def test_nobody_waits_for_the_rest_application_longer_than_for_a_head() -> None:
    async with (
        agent_rig(is_rest_open=False, first_frame_seconds=0.05) as rig,
        Visitor(rig.port) as visitor,
    ):
        visitor.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.answer()
        await until(lambda: rig.gate.waiting == 0)


async def test_who_left_while_waiting_for_the_rest_application_is_forgotten() -> None:
    async with agent_rig(is_rest_open=False) as rig:
        async with Visitor(rig.port) as visitor:
            visitor.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: any(c.waits_for_rest for c in rig.front.connections))

        rig.front.open_rest(rig.rest)

        await until(lambda: rig.gate.waiting == 0 and rig.front.rest_connections == 0)


class _FullRest:
    connections: list[Any] = [None] * MAX_REST_CONNECTIONS

    def __call__(self) -> asyncio.Protocol:
        raise AssertionError("no more connections may be made")


async def test_callers_of_the_api_are_bounded() -> None:
    front = Front({}, PreAuthGate(), head_seconds=5.0)
    front.open_rest(_FullRest())
    server = await asyncio.get_running_loop().create_server(front.connection, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")
            received = await reader.read()
            writer.close()
            await writer.wait_closed()

    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"too many connections" in received


@pytest.mark.parametrize(
    ("target", "door"),
    [
        ("/exact", "one"),
        ("/exact?token=x", "one"),
        ("/exact/below", None),
        ("/exactly", None),
        ("/below/17", "many"),
        ("/below/", "many"),
        ("/below/a/b", None),
        ("/", None),
        ("exact", None),
    ],
)
def test_a_door_stands_for_its_path_or_for_all_below_it(target: str, door: str | None) -> None:
    doors = cast("Any", {"/exact": "one", "/below/": "many"})
    front = Front(doors, PreAuthGate(), head_seconds=5.0)

    assert cast("Any", front.door(target)) == door
