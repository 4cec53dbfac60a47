"""What all connections of the edge share: routes, limits, deadlines, drain."""

import asyncio

import pytest

from helpers.edge_rig import DOMAIN, chunked, edge_rig, get
from helpers.upstream import ScriptedUpstream, answer
from helpers.waiting import until
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.claim import Claim


async def test_a_name_that_nobody_has_is_not_found_and_says_so_to_people_and_programs() -> None:
    async with edge_rig() as rig:
        async with rig.visitor() as visitor:
            visitor.send(get("/", "Accept: text/html,*/*", host=f"nobody.{DOMAIN}"))
            page = await visitor.answer()
        async with rig.visitor() as visitor:
            visitor.send(get("/", "Accept: application/json", host=f"nobody.{DOMAIN}"))
            json = await visitor.answer()

        for reply in (page, json):
            assert reply.status == 404
            assert reply.header("x-moleport-error") == "tunnel-not-found"
        assert "text/html" in (page.header("content-type") or "")
        assert "application/json" in (json.header("content-type") or "")


async def test_a_tcp_tunnel_is_no_route() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        await rig.registry.claim(rig.session, 2, Claim(protocol=TunnelProtocol.TCP, port=20_000))

        visitor.send(get(host="20000"))

        assert (await visitor.answer()).status == 404


# Listener limits, deadlines, drain


async def test_a_connection_above_the_limit_is_told_to_come_again() -> None:
    async with edge_rig(max_connections=1) as rig, rig.visitor() as first:
        first.send(get())
        await first.answer()

        async with rig.visitor() as second:
            second.send(get())
            reply = await second.answer()

        first.send(get())
        assert (await first.answer()).status == 200

    assert (reply.status, reply.header("retry-after")) == (503, "1")
    assert reply.header("x-moleport-error") == "busy"


async def test_without_a_free_descriptor_visitors_are_told_to_come_again() -> None:
    async with edge_rig() as rig, rig.visitor() as first:
        first.send(get())
        await first.answer()
        rig.edge.descriptors.limit = 1

        async with rig.visitor() as second:
            second.send(get())
            reply = await second.answer()
        left = rig.edge.descriptors.available
        await first.aclose()
        await until(lambda: rig.edge.descriptors.available == 1)

    assert (reply.status, left) == (503, 0)


async def test_a_head_that_does_not_come_in_time_is_answered_and_closed() -> None:
    async with edge_rig(head_seconds=30) as rig, rig.visitor() as visitor:
        visitor.send(b"GET / HTTP/1.1\r\nHo")
        await until(lambda: any(c._head_bytes for c in rig.edge.connections))

        rig.pass_time(31)

        reply = await visitor.answer()
        assert reply.status == 408
        assert reply.header("x-moleport-error") == "request-timeout"
        visitor.send_eof()
        assert await visitor.rest() == b""


@pytest.mark.parametrize("served", [0, 1])
async def test_an_idle_connection_is_closed_without_a_word(served: int) -> None:
    async with edge_rig(head_seconds=30, idle_seconds=75) as rig, rig.visitor() as visitor:
        for _ in range(served):
            visitor.send(get())
            await visitor.answer()
        await until(lambda: rig.edge.connections)

        rig.pass_time(76)

        assert await visitor.rest() == b""


async def test_an_answer_that_does_not_begin_in_time_is_given_up() -> None:
    async with (
        edge_rig(ScriptedUpstream(respond=lambda _: None), response_head_seconds=600) as rig,
        rig.visitor() as visitor,
    ):
        visitor.send(get())
        await until(lambda: rig.upstream.requests)

        rig.pass_time(590)
        assert not rig.upstream.streams[0].is_over
        rig.pass_time(20)

        assert (await visitor.answer()).status == 504
        assert rig.upstream.streams[0].reset_code is not None


async def test_an_answer_that_began_may_last_for_ever() -> None:
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: rig.upstream.requests)
        stream = upstream.streams[0]
        stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await visitor.head()

        rig.pass_time(1_000_000)
        stream.send(chunked(b"late"))

        assert await visitor.read(14) == b"4\r\nlate\r\n0\r\n\r\n"


async def test_draining_closes_idle_connections_and_finishes_the_others() -> None:
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig, rig.visitor() as idle, rig.visitor() as busy:
        busy.send(get())
        await until(lambda: upstream.requests and len(rig.edge.connections) == 2)

        rig.edge.drain()

        assert await idle.rest() == b""
        assert rig.edge.active_exchanges == 1
        upstream.streams[0].send(answer())
        reply = await busy.answer()
        assert reply.header("connection") == "close"
        assert await busy.rest() == b""
        await until(lambda: rig.edge.active_exchanges == 0)


async def test_closing_resets_what_is_under_way() -> None:
    upstream = ScriptedUpstream(respond=lambda _: None)
    async with edge_rig(upstream) as rig, rig.visitor() as visitor:
        visitor.send(get())
        await until(lambda: upstream.requests)

        rig.edge.close()

        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        await until(lambda: upstream.streams[0].reset_code is not None)


async def test_the_sweep_goes_on_by_itself_until_the_edge_is_closed() -> None:
    async with edge_rig() as rig:
        rig.edge.start()
        assert rig.edge._timer is not None

        rig.edge.close()

        assert rig.edge._timer is None


async def test_a_visitor_that_leaves_before_a_request_is_forgotten() -> None:
    async with edge_rig() as rig:
        async with rig.visitor():
            await until(lambda: rig.edge.connections)

        await until(lambda: not rig.edge.connections)


async def test_a_fault_of_our_own_is_logged_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        monkeypatch.setattr(rig.registry, "lookup", lambda _: 1 // 0)

        visitor.send(get())

        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await visitor.answer()
        assert "edge callback failed" in caplog.text
