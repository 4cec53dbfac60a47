"""One session at the agent's side: what the server may send, and what becomes of it."""

from dataclasses import replace

import pytest

from helpers.tunnel_server import SHOP, Connection, RunningAgent, running_agent, tunnel_server
from helpers.waiting import until
from moleport_agent import session as session_module
from moleport_agent.events import (
    Connected,
    Disconnected,
    LatencyMeasured,
    RequestSeen,
    RequestsSkipped,
    TunnelClosed,
    TunnelOpened,
)
from moleport_agent.settings import Target
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


async def bound(connection: Connection, agent: RunningAgent) -> None:
    await connection.serve_shop()
    await agent.event(TunnelOpened)


async def test_round_trips_are_measured() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await bound(connection, agent)
        await connection.send(frames.PING, b"x")
        await connection.frame(frames.PONG)  # its own PING came before and was answered

        assert (await agent.event(LatencyMeasured)).milliseconds >= 0


async def test_a_revoked_binding_is_told() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await bound(connection, agent)

        revoked = messages.BindRevoked(bind_id=1, reason="deleted by its owner")
        await connection.send(frames.BIND_REVOKED, revoked.encode())

        assert await agent.event(TunnelClosed) == TunnelClosed("shop", "deleted by its owner")
        await connection.open_stream(2)
        reset = await connection.payload(frames.RESET)
        assert int.from_bytes(reset[:2], "big") == Code.REFUSED


async def test_reported_requests_are_shown() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await bound(connection, agent)
        row = messages.ReportedRequest(
            bind_id=1, method="GET", path="/", status=200, duration_ms=1.5, peer="192.0.2.9:1"
        )
        foreign = messages.ReportedRequest(
            bind_id=9, method="GET", path="/", status=200, duration_ms=1.5, peer=""
        )

        report = messages.Report(requests=(foreign, row), skipped=3)
        await connection.send(frames.REPORT, report.encode())

        seen = await agent.event(RequestSeen)
        assert seen == RequestSeen("shop", "GET", "/", 200, 1.5, "192.0.2.9:1")
        assert await agent.event(RequestsSkipped) == RequestsSkipped(3)


async def test_frames_behind_the_answers_in_one_message_are_not_lost() -> None:
    nobody = replace(SHOP, target=Target(text="1", port=1))
    async with tunnel_server() as server, running_agent(server, nobody) as agent:
        connection = await server.accept()
        await connection.hello()
        hello = messages.HelloOk(
            session_id="S-1",
            stream_window=1000,
            session_window=1000,
            capabilities=(messages.CAPABILITY_MOLEPORT,),
        )
        await connection.send_message(
            frames.serialize(frames.HELLO_OK, 0, hello.encode())
            + frames.serialize(frames.PING, 0, b"behind")
        )
        assert await connection.payload(frames.PONG) == b"behind"
        bind = await connection.bind()
        ok = messages.BindOk(client_bind_ref=bind.client_bind_ref, bind_id=5, public_url="http://a")
        opened = messages.StreamOpen(bind_id=5, peer="", window=1000)
        await connection.send_message(
            frames.serialize(frames.BIND_OK, 0, ok.encode())
            + frames.serialize(frames.STREAM_OPEN, 2, opened.encode())
        )

        reset = await connection.payload(frames.RESET)
        assert b"no such binding" not in reset
        await agent.event(TunnelOpened)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(b"\x01", "truncated", id="truncated"),
        pytest.param(frames.serialize(frames.HELLO, 0, b"{}"), "0x01", id="HELLO"),
        pytest.param(frames.serialize(frames.BIND_OK, 0, b"{"), "JSON", id="no JSON"),
        pytest.param(frames.serialize(frames.DATA, 8, b"x"), "stream 8", id="unknown stream"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_left_and_tried_again(
    message: bytes, reason: str
) -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await bound(connection, agent)

        await connection.send_message(message)

        assert reason in (await agent.event(Disconnected)).reason
        await (await server.accept()).hello()


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x01", id="truncated"),
        pytest.param(frames.serialize(frames.HELLO_OK, 0, b"{"), id="no JSON"),
        pytest.param(frames.serialize(frames.BIND_OK, 0, b"{}"), id="BIND_OK before HELLO_OK"),
        pytest.param(
            frames.serialize(
                frames.HELLO_OK,
                0,
                messages.HelloOk(session_id="S", stream_window=1, session_window=1).encode(),
            ),
            id="without moleport.1",
        ),
    ],
)
async def test_a_bad_answer_to_hello_is_left_and_tried_again(message: bytes) -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.hello()

        await connection.send_message(message)

        await agent.event(Disconnected)
        await (await server.accept()).hello()
        assert not any(isinstance(event, Connected) for event in agent.events)


async def test_a_server_that_does_not_answer_hello_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.02)
    async with tunnel_server() as server, running_agent(server) as agent:
        await (await server.accept()).hello()

        assert (await agent.event(Disconnected)).reason == "no answer from the server"


async def test_a_silent_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "PING_SECONDS", 0.02)
    monkeypatch.setattr(session_module, "SILENCE_SECONDS", 0.05)
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        connection.answers_pings = False
        await bound(connection, agent)

        assert "silent" in (await agent.event(Disconnected)).reason
        hello = await (await server.accept()).hello()
        assert hello.resume_session_id == "S-1"


async def test_an_address_given_too_late_is_given_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with tunnel_server() as server, running_agent(server):
        connection = await server.accept()
        await connection.hello()
        monkeypatch.setattr(session_module, "ANSWER_SECONDS", 0.02)
        await connection.grant()
        bind = await connection.bind()
        await until(lambda: "no answer to BIND" in caplog.text)

        await connection.give(bind, bind_id=7)

        unbind = messages.Unbind.decode(await connection.payload(frames.UNBIND))
        assert unbind.bind_id == 7


async def test_a_lost_secondary_costs_its_own_streams_only() -> None:
    ticket = messages.JoinTicket(index=1, nonce="n", expires_ms=15_000)
    async with tunnel_server() as server, running_agent(server, SHOP, connections=2) as agent:
        primary = await server.accept()
        await primary.hello()
        await primary.grant(connections_granted=2, join_tickets=(ticket,))
        secondary = await server.accept()
        await secondary.frame(frames.JOIN)
        await secondary.send(frames.JOIN_OK, b"{}")
        await primary.give(await primary.bind())
        await agent.event(TunnelOpened)

        secondary.break_off()

        await primary.send(frames.PING, b"x")
        assert await primary.payload(frames.PONG) == b"x"
        assert not any(isinstance(event, Disconnected) for event in agent.events)
        await until(lambda: not agent.task.done())
