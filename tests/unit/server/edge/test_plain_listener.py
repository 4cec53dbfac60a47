"""PROXY headers on listeners without TLS."""

import asyncio
from ipaddress import ip_network

import pytest

from helpers.edge_rig import edge_rig, get
from helpers.waiting import until
from moleport_server.edge import plain_listener
from moleport_server.edge.plain_listener import ProxyPreamble
from moleport_wire.proxy_protocol import Endpoint, serialize

TRUSTED = ProxyPreamble((ip_network("127.0.0.1/32"),))
V1 = serialize(1, Endpoint("198.51.100.4", 4000), Endpoint("192.0.2.1", 80))
V2 = serialize(2, Endpoint("2001:db8::4", 4000), Endpoint("2001:db8::1", 80))
LOCAL = serialize(2, None, None)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        pytest.param(V1, "198.51.100.4", id="v1"),
        pytest.param(V2, "2001:db8::4", id="v2"),
        pytest.param(LOCAL, "127.0.0.1", id="of the proxy itself"),
    ],
)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
async def test_a_trusted_proxy_tells_who_the_visitor_is(
    header: bytes, address: str, cut: str
) -> None:
    async with edge_rig(preamble=TRUSTED) as rig, rig.visitor() as visitor:
        data = header + get()
        for piece in [data] if cut == "whole" else [bytes([b]) for b in data]:
            visitor.send(piece)
            await visitor.drain()

        assert (await visitor.answer()).status == 200
        assert rig.upstream.requests[0].header("x-forwarded-for") == address


async def test_a_header_of_a_stranger_is_a_bad_request() -> None:
    async with edge_rig(preamble=TRUSTED) as rig, rig.visitor(local_host="127.0.0.2") as visitor:
        visitor.send(V1 + get())

        assert (await visitor.answer()).status == 400


async def test_a_stranger_needs_no_header() -> None:
    async with edge_rig(preamble=TRUSTED) as rig, rig.visitor(local_host="127.0.0.2") as visitor:
        visitor.send(get())

        assert (await visitor.answer()).status == 200
        assert rig.upstream.requests[0].header("x-forwarded-for") == "127.0.0.2"


async def test_a_trusted_proxy_without_a_header_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with edge_rig(preamble=TRUSTED) as rig, rig.visitor() as visitor:
        visitor.send(get())

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.answer()
        assert "no PROXY header" in caplog.text
        assert rig.edge.connections == set()


async def test_a_trusted_proxy_that_says_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain_listener, "PREAMBLE_SECONDS", 0.02)
    async with edge_rig(preamble=TRUSTED) as rig, rig.visitor() as visitor:
        visitor.send(V1[:5])

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await visitor.answer()


async def test_a_trusted_proxy_may_leave_before_its_header() -> None:
    async with edge_rig(preamble=TRUSTED) as rig:
        async with rig.visitor() as visitor:
            visitor.send(V1[:5])
            await visitor.drain()
        async with rig.visitor() as visitor:
            visitor.send(V1 + get())

            assert (await visitor.answer()).status == 200
        await until(lambda: not rig.edge.connections)
