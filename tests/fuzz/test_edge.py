"""Strangers' bytes against the HTTP edge: heads of visitors and answers of services.

Whatever comes, the edge answers, closes or resets; it raises nothing, keeps nothing, and what it passes
on to a service is one well-formed request (the scripted service parses with h11 and fails otherwise).
"""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.edge_rig import HOST, EdgeRig, edge_rig, get
from helpers.sink import Sink
from helpers.upstream import ScriptedUpstream, answer

is_long = settings.get_current_profile_name() == "fuzz"
run = settings() if is_long else settings(derandomize=True, max_examples=200, database=None)

WORDS = [
    b"GET", b"POST", b"HEAD", b"OPTIONS", b" ", b"/", b"/a?b=c", b"*", b" HTTP/1.1", b" HTTP/1.0",
    b"\r\n", b"\n", b"\r\n\r\n", b"Host: ", HOST.encode(), b"Content-Length: ", b"4", b"milk",
    b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"4\r\nmilk\r\n", b"Connection: ", b"close",
    b"keep-alive", b"Upgrade: websocket", b"Expect: 100-continue", b"X-Request-Id: 1", b":", b"\0",
    b"HTTP/1.1 200 OK", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 103 Early Hints",
]  # fmt: skip
pieces = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=14).map(b"".join)
cuts = st.lists(st.integers(1, 200), max_size=4)


class _Rig:
    """One edge and its loop for all examples of a test."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.upstream = ScriptedUpstream()
        self.edge: EdgeRig = self.runner.run(
            self.stack.enter_async_context(edge_rig(self.upstream))
        )

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def rig() -> Iterator[_Rig]:
    made = _Rig()
    yield made
    made.close()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in [*parts, data] if part]


async def visit(rig: EdgeRig, parts: list[bytes]) -> Sink:
    connection = rig.edge.connection()
    transport = Sink()
    connection.connection_made(transport)
    for part in parts:
        if transport.is_closed:
            break
        connection.data_received(part)
    await asyncio.sleep(0)
    connection.connection_lost(None)
    return transport


@run
@given(head=pieces, sizes=cuts)
def test_no_bytes_of_a_visitor_break_the_edge(rig: _Rig, head: bytes, sizes: list[int]) -> None:
    start = get()[:-2] if sizes else b""

    transport = rig.runner.run(visit(rig.edge, cut(start + head, sizes)))

    assert not transport.written or transport.written.startswith(b"HTTP/1.1 ")
    assert rig.edge.edge.connections == set()
    assert rig.edge.tunnel.active == 0


@run
@given(raw=pieces, is_answer=st.booleans(), sizes=cuts)
def test_no_bytes_of_a_service_break_the_edge(
    rig: _Rig, raw: bytes, is_answer: bool, sizes: list[int]
) -> None:
    data = answer()[:-7] + raw if is_answer else raw

    async def serve() -> Sink:
        connection = rig.edge.edge.connection()
        transport = Sink()
        connection.connection_made(transport)
        rig.upstream.respond = lambda _: None
        try:
            connection.data_received(get())
            stream = rig.upstream.streams[-1]
            for part in cut(data, sizes):
                if stream.is_over:
                    break
                stream.send(part)
            await asyncio.sleep(0)
        finally:
            connection.connection_lost(None)
        return transport

    transport = rig.runner.run(serve())

    assert not transport.written or transport.written.startswith(b"HTTP/1.1 ")
    assert rig.edge.edge.connections == set()
    assert rig.edge.tunnel.active == 0
