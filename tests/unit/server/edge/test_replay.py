import asyncio

import pytest

from helpers.edge_rig import EdgeRig, edge_rig, get, post
from helpers.upstream import ScriptedUpstream, answer
from helpers.waiting import until
from moleport_server.capture.record import Capture
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.edge import replay
from moleport_server.edge.replay import Replayer
from moleport_server.errors import InvalidRequest, NoSession, UpstreamLost, UpstreamRefused
from moleport_server.registry.claim import Claim
from moleport_wire.hoody.frames import Code


async def captured(rig: EdgeRig, request: bytes) -> Capture:
    async with rig.visitor() as visitor:
        visitor.send(request)
        await visitor.answer()
    return rig.captures.list(rig.tunnel.id, 1)[0].capture


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(get("/a?b=c", "X-Mine: 1"), id="GET"),
        pytest.param(post(b"milk"), id="POST"),
        pytest.param(
            get("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nmilk\r\n0\r\n\r\n",
            id="chunked",
        ),
    ],
)
async def test_a_request_is_sent_again_as_it_was(request_bytes: bytes) -> None:
    async with edge_rig() as rig:
        capture = await captured(rig, request_bytes)
        rig.upstream.respond = lambda _: answer(b"again", status="201 Created")

        again = await Replayer(rig.edge, 7).send(rig.tunnel, capture)

        first, second = rig.upstream.requests
        assert (second.method, second.target) == (first.method, first.target)
        assert (second.headers, second.body) == (first.headers, first.body)
        assert (again.status, again.response_body) == (201, b"again")
        assert again.sequence != capture.sequence
        assert again.connection_id == 7
        assert rig.tunnel.active == 0


async def test_a_replay_ends_where_the_protocol_is_switched() -> None:
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    upstream = ScriptedUpstream(respond=lambda _: answer(status="426 Upgrade Required"))
    async with edge_rig(upstream) as rig:
        capture = await captured(rig, get("/", "Connection: Upgrade", "Upgrade: websocket"))
        upstream.respond = lambda _: switch

        again = await Replayer(rig.edge, 7).send(rig.tunnel, capture)

        assert again.status == 101
        assert upstream.streams[-1].reset_code is not None
        assert rig.tunnel.active == 0


async def test_a_tcp_tunnel_has_nothing_to_replay() -> None:
    async with edge_rig() as rig:
        capture = await captured(rig, get())
        tcp = await rig.registry.claim(rig.session, 2, Claim(protocol=TunnelProtocol.TCP))

        with pytest.raises(InvalidRequest):
            await Replayer(rig.edge, 7).send(tcp, capture)


async def test_a_replay_does_not_wait_for_an_absent_agent() -> None:
    async with edge_rig() as rig:
        capture = await captured(rig, get())
        rig.lose_agent()

        with pytest.raises(NoSession):
            await Replayer(rig.edge, 7).send(rig.tunnel, capture)


async def test_a_service_that_refuses_is_told() -> None:
    async with edge_rig() as rig:
        capture = await captured(rig, get())
        rig.upstream.respond = lambda _: None
        async with asyncio.TaskGroup() as group:
            work = group.create_task(_failure(Replayer(rig.edge, 7), rig, capture))
            await until(lambda: len(rig.upstream.requests) == 2)
            rig.upstream.streams[0].lose(Code.REFUSED, "Connection refused")

        assert isinstance(work.result(), UpstreamRefused)


async def test_an_answer_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_SECONDS", 0.02)
    async with edge_rig() as rig:
        capture = await captured(rig, get())
        rig.upstream.respond = lambda _: None

        with pytest.raises(UpstreamLost):
            await Replayer(rig.edge, 7).send(rig.tunnel, capture)

        assert rig.upstream.streams[-1].reset_code == Code.CANCEL
        assert rig.tunnel.active == 0


async def test_an_answer_that_breaks_is_what_was_captured() -> None:
    async with edge_rig() as rig:
        capture = await captured(rig, get())
        rig.upstream.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nmi"
        async with asyncio.TaskGroup() as group:
            work = group.create_task(Replayer(rig.edge, 7).send(rig.tunnel, capture))
            await until(lambda: len(rig.upstream.requests) == 2)
            await asyncio.sleep(0)
            rig.upstream.streams[0].send_eof()

        assert (work.result().status, work.result().response_body) == (200, b"mi")


async def _failure(replayer: Replayer, rig: EdgeRig, capture: Capture) -> Exception | None:
    try:
        await replayer.send(rig.tunnel, capture)
    except UpstreamRefused as error:
        return error
    return None
