"""Sessions of agents, over real sockets, against a driver by another WebSocket library."""

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from helpers.agent_rig import ADMIN_SECRET, AgentRig, Driver, agent_rig
from helpers.edge_rig import DOMAIN
from helpers.waiting import until
from moleport_server.agents.hoody.session import (
    MAX_PENDING_BINDS,
    MOST_UNREAD_BYTES,
    HoodySession,
)
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.live import Session, Tunnel
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.window import ReceiveBudget

HOST = f"shop.{DOMAIN}"


def only_session(rig: AgentRig) -> Session:
    (session,) = rig.base.registry.sessions.values()
    return session


class Received:
    """A stream's receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.has_eof = False
        self.reset: tuple[int, str] | None = None

    def stream_data(self, data: Payload) -> None:
        self.data += data

    def stream_eof(self) -> None:
        self.has_eof = True

    def stream_reset(self, code: int, reason: str) -> None:
        self.reset = (code, reason)

    def stream_pause_writing(self) -> None: ...
    def stream_resume_writing(self) -> None: ...


# Handshake


async def test_a_lost_session_is_resumed_with_its_binds() -> None:
    async with agent_rig() as rig:
        async with rig.driver() as driver:
            first = await driver.greet()
            bound = await driver.bind(subdomain="shop")
            driver.break_off()
            await until(lambda: not rig.base.registry.sessions)

        async with rig.driver() as driver:
            hello = await driver.greet(resume_session_id=first.session_id)

            assert hello.resumed
            assert hello.session_id == first.session_id
            (bind,) = hello.resumed_binds
            assert (bind.bind_id, bind.public_url) == (bound.bind_id, bound.public_url)
            again = await driver.bind(2, subdomain="other")
            assert again.bind_id > bound.bind_id


async def test_a_session_that_seems_alive_is_resumed_and_its_old_connection_ends() -> None:
    async with agent_rig() as rig, rig.driver() as old, rig.driver() as new:
        first = await old.greet()
        await old.bind(subdomain="shop")

        hello = await new.greet(resume_session_id=first.session_id)

        assert hello.resumed
        farewell, closed = await old.goodbye()
        assert (farewell.code, closed) == (Code.NONE, 1000)
        tunnel = rig.base.registry.lookup(HOST)
        assert tunnel is not None
        assert tunnel.session is only_session(rig)


@pytest.mark.parametrize("wanted", ["foreign", "S-unknown"])
async def test_a_session_of_nobody_or_of_another_token_becomes_a_new_one(wanted: str) -> None:
    async with agent_rig() as rig:
        await rig.issue("other", token_id="token-2")
        async with rig.driver(secret="other") as owner, rig.driver() as driver:
            foreign = (await owner.greet()).session_id
            await owner.bind(subdomain="shop")

            hello = await driver.greet(resume_session_id=foreign if wanted == "foreign" else wanted)

            assert not hello.resumed
            assert hello.session_id not in (foreign, wanted)
            assert len(rig.base.registry.sessions) == 2


# Several connections


MULTI = (messages.CAPABILITY_MOLEPORT, messages.CAPABILITY_MULTI)


async def test_a_secondary_joins_by_its_ticket_and_carries_streams() -> None:
    async with agent_rig() as rig, rig.driver() as primary, rig.driver(secret=None) as secondary:
        hello = await primary.greet(capabilities=MULTI, max_connections=3)
        assert hello.connections_granted == 3
        assert [ticket.index for ticket in hello.join_tickets] == [1, 2]
        ticket = hello.join_tickets[0]
        join = messages.Join(session_id=hello.session_id, index=1, nonce=ticket.nonce)

        await secondary.send(frames.JOIN, join.encode())

        assert json.loads(await secondary.payload(frames.JOIN_OK)) == {
            "sessionId": hello.session_id,
            "index": 1,
        }
        session = only_session(rig)
        assert session.connections == 2
        assert rig.gate.waiting == 0
        secondary.break_off()
        await until(lambda: session.connections == 1)
        assert rig.base.registry.sessions == {hello.session_id: session}


async def test_no_more_connections_are_granted_than_allowed_or_asked_for() -> None:
    async with agent_rig() as rig:
        async with rig.driver() as driver:
            hello = await driver.greet(capabilities=MULTI, max_connections=100)
            assert hello.connections_granted == 16
        async with rig.driver() as driver:
            hello = await driver.greet(max_connections=4)
            assert (hello.connections_granted, hello.join_tickets) == (1, ())


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("unknown session", "UNKNOWN_SESSION"),
        ("wrong nonce", "BAD_NONCE"),
        ("wrong index", "BAD_INDEX"),
        ("used", "ALREADY_JOINED"),
        ("expired", "EXPIRED"),
    ],
)
async def test_a_bad_ticket_is_refused(
    case: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "expired":
        monkeypatch.setattr("moleport_server.agents.hoody.session.TICKET_SECONDS", 0.0)
    async with agent_rig() as rig, rig.driver() as primary, rig.driver() as other:
        hello = await primary.greet(capabilities=MULTI, max_connections=2)
        nonce = hello.join_tickets[0].nonce
        join = messages.Join(
            session_id="S-0" if case == "unknown session" else hello.session_id,
            index=9 if case == "wrong index" else 1,
            nonce="x" * len(nonce) if case == "wrong nonce" else nonce,
        )
        if case == "used":
            async with rig.driver() as first:
                await first.send(frames.JOIN, join.encode())
                await first.frame(frames.JOIN_OK)
                await other.send(frames.JOIN, join.encode())
                refusal = messages.Refusal.decode(await other.payload(frames.JOIN_ERR))
        else:
            await other.send(frames.JOIN, join.encode())
            refusal = messages.Refusal.decode(await other.payload(frames.JOIN_ERR))

        assert refusal.code == code
        assert await other.closed() == 1008


async def test_the_end_of_the_primary_ends_the_secondaries() -> None:
    async with agent_rig() as rig, rig.driver() as primary, rig.driver() as secondary:
        hello = await primary.greet(capabilities=MULTI, max_connections=2)
        join = messages.Join(
            session_id=hello.session_id, index=1, nonce=hello.join_tickets[0].nonce
        )
        await secondary.send(frames.JOIN, join.encode())
        await secondary.frame(frames.JOIN_OK)

        primary.break_off()

        assert await secondary.closed() == 1001
        await until(lambda: not rig.base.registry.sessions)


# Binds


async def test_a_bind_returns_the_address_and_the_tunnels_id() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()

        http = await driver.bind(7, subdomain="shop", host_header="localhost")
        tcp = await driver.bind(8, "tcp", port=20_001)

        assert (http.client_bind_ref, http.public_url) == (7, f"https://{HOST}:8443")
        assert tcp.public_url == f"tcp://{DOMAIN}:20001"
        tunnel = rig.base.registry.lookup(HOST)
        assert tunnel is not None
        assert str(tunnel.id) == http.tunnel_id
        assert tunnel.host_header == "localhost"


@pytest.mark.parametrize(
    ("members", "code", "is_final"),
    [
        pytest.param({"subdomain": "www"}, "FORBIDDEN", True, id="reserved"),
        pytest.param({"hostname": "a.example.com"}, "FORBIDDEN", True, id="not our domain"),
        pytest.param({"subdomain": "-"}, "INVALID_REQUEST", True, id="bad label"),
        pytest.param(
            {"subdomain": "a12", "hostname": HOST}, "INVALID_REQUEST", True, id="two names"
        ),
        pytest.param({"kind": "udp"}, "INVALID_REQUEST", True, id="unknown kind"),
        pytest.param({"mode": "pull"}, "INVALID_REQUEST", True, id="pull"),
        pytest.param({"allowed_cidrs": ("x",)}, "INVALID_REQUEST", True, id="bad network"),
        pytest.param({"kind": "tcp", "port": 80}, "INVALID_REQUEST", True, id="port outside"),
        pytest.param({"subdomain": "taken"}, "ALREADY_BOUND", False, id="taken name"),
        pytest.param({"kind": "tcp", "port": 20_003}, "PORT_IN_USE", False, id="taken port"),
    ],
)
async def test_a_refused_bind_says_why_and_whether_to_ask_again(
    members: dict[str, Any], code: str, is_final: bool
) -> None:
    async with agent_rig() as rig, rig.driver(secret=ADMIN_SECRET) as other, rig.driver() as driver:
        await other.greet()
        await other.bind(1, subdomain="taken")
        await other.bind(2, "tcp", port=20_003)
        await driver.greet()
        request = messages.Bind(client_bind_ref=5, **({"kind": "http"} | members))

        await driver.send(frames.BIND, request.encode())

        refusal = messages.BindErr.decode(await driver.payload(frames.BIND_ERR))
        assert (refusal.client_bind_ref, refusal.code, refusal.is_final) == (5, code, is_final)
        assert refusal.message
        assert (await driver.bind(6, subdomain="fine")).bind_id  # the session goes on


async def test_a_bind_above_the_quota_is_refused() -> None:
    async with agent_rig(registry={"max_tunnels_per_session": 1}) as rig, rig.driver() as driver:
        await driver.greet()
        await driver.bind()

        await driver.send(frames.BIND, messages.Bind(client_bind_ref=2, kind="http").encode())

        refusal = messages.BindErr.decode(await driver.payload(frames.BIND_ERR))
        assert (refusal.code, refusal.is_final) == ("BIND_CAP_EXCEEDED", False)


async def test_an_agent_that_floods_the_server_with_binds_is_ended() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        bind = messages.Bind(client_bind_ref=1, kind="http").encode()
        half = frames.serialize(frames.BIND, 0, bind) * (MAX_PENDING_BINDS // 2 + 1)

        await driver.send_message(half)
        await driver.send_message(half)
        farewell, _ = await driver.goodbye()

        assert farewell.code == Code.CALM_DOWN


async def test_a_bind_that_fails_for_no_known_reason_is_answered_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        with monkeypatch.context() as defect:
            defect.setattr(rig.base.registry._claims._governance, "govern", fail)
            bind = messages.Bind(client_bind_ref=7, kind="http", subdomain="shop")

            await driver.send(frames.BIND, bind.encode())
            refusal = messages.BindErr.decode(await driver.payload(frames.BIND_ERR))

        assert (refusal.client_bind_ref, refusal.code, refusal.is_final) == (7, "INTERNAL", False)
        assert "a defect" not in refusal.message
        assert "bind failed" in caplog.messages
        assert rig.base.registry.tunnels == {}
        assert (await driver.bind(8, subdomain="shop")).bind_id  # the session goes on


async def test_an_unbound_address_is_free_again() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        bound = await driver.bind(subdomain="shop")
        unbind = messages.Unbind(bind_id=bound.bind_id).encode()

        await driver.send(frames.UNBIND, unbind)
        assert await driver.payload(frames.UNBIND_OK) == unbind
        await driver.send(frames.UNBIND, unbind)

        assert json.loads(await driver.payload(frames.UNBIND_ERR))["code"] == "NOT_FOUND"
        assert rig.base.registry.lookup(HOST) is None


async def test_a_bind_that_its_owner_closes_is_revoked() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        bound = await driver.bind(subdomain="shop")
        tunnel = rig.base.registry.lookup(HOST)
        assert tunnel is not None

        await rig.base.registry.close_tunnel(tunnel, "deleted by its owner")

        revoked = messages.BindRevoked.decode(await driver.payload(frames.BIND_REVOKED))
        assert (revoked.bind_id, revoked.reason) == (bound.bind_id, "deleted by its owner")


# Streams


async def bound(driver: Driver, rig: AgentRig, **hello: Any) -> Tunnel:
    await driver.greet(**hello)
    await driver.bind(subdomain="shop")
    tunnel = rig.base.registry.lookup(HOST)
    assert tunnel is not None
    return tunnel


async def test_a_stream_carries_bytes_both_ways() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        upstream, received = only_session(rig).upstream, Received()

        stream = upstream.open_stream(tunnel, received, "192.0.2.9:4000")
        stream.write(b"request")
        stream.write_eof()

        _, stream_id, payload = await driver.frame(frames.STREAM_OPEN)
        opened = messages.StreamOpen.decode(payload)
        assert (opened.bind_id, opened.peer) == (tunnel.bind_id, "192.0.2.9:4000")
        assert await driver.frame(frames.DATA) == (frames.DATA, stream_id, b"request")
        assert await driver.frame(frames.EOF) == (frames.EOF, stream_id, b"")
        await driver.send(frames.DATA, b"answer", stream_id)
        await driver.send(frames.EOF, b"", stream_id)
        await until(lambda: received.has_eof)
        assert received.data == b"answer"
        assert upstream.open_streams == 0


@pytest.mark.parametrize("how", ["streams", "memory"])
async def test_a_session_without_room_opens_no_stream(how: str) -> None:
    budget = ReceiveBudget(1 << 20, 1 << 16)
    settings: dict[str, Any] = {"max_streams": 1} if how == "streams" else {}
    async with agent_rig(budget=budget, **settings) as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        upstream = only_session(rig).upstream
        upstream.open_stream(tunnel, Received(), "")
        if how == "memory":
            budget.held_bytes = budget.limit_bytes

        with pytest.raises(UpstreamBusy):
            upstream.open_stream(tunnel, Received(), "")


async def test_a_lost_session_resets_its_streams_and_opens_no_more() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        upstream, received = only_session(rig).upstream, Received()
        upstream.open_stream(tunnel, received, "")

        driver.break_off()

        await until(lambda: received.reset)
        assert received.reset is not None
        assert received.reset[0] == Code.STREAM_CLOSED
        assert tunnel.session is None
        with pytest.raises(NoSession):
            upstream.open_stream(tunnel, Received(), "")


# Control of a live session


async def test_a_ping_of_the_agent_is_answered() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()

        await driver.send(frames.PING, b"nonce")

        assert await driver.payload(frames.PONG) == b"nonce"


async def test_round_trips_are_measured() -> None:
    async with agent_rig(ping_seconds=0.01) as rig, rig.driver() as driver:
        measured: list[float] = []
        rig.agents.rtt_seconds = measured.append
        await driver.greet()

        await driver.frame(frames.PING)

        await until(lambda: measured)
        assert 0 <= measured[0] < 20


async def test_an_agent_that_answers_is_alive() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        upstream = only_session(rig).upstream

        async with asyncio.TaskGroup() as group:
            probe = group.create_task(upstream.is_alive(3.0))
            await driver.frame(frames.PING)

        assert probe.result()


async def test_an_agent_that_does_not_answer_or_left_is_not() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        driver.answers_pings = False
        await driver.greet()
        upstream = only_session(rig).upstream

        assert not await upstream.is_alive(0.02)
        async with asyncio.TaskGroup() as group:
            probe = group.create_task(upstream.is_alive(3.0))
            await asyncio.sleep(0)
            driver.break_off()
        assert not probe.result()
        assert not await upstream.is_alive(3.0)


async def test_a_silent_agent_is_gone() -> None:
    async with (
        agent_rig(ping_seconds=0.05, silence_seconds=0.5) as rig,
        rig.driver() as driver,
    ):
        driver.answers_pings = False
        tunnel = await bound(driver, rig)

        assert await driver.closed() is None
        await until(lambda: not rig.base.registry.sessions)
        assert tunnel.may_hold


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(frames.serialize(frames.HELLO, 0, b"{}"), Code.PROTOCOL_ERROR, id="HELLO"),
        pytest.param(
            frames.serialize(frames.STREAM_OPEN, 2, b"{}"), Code.PROTOCOL_ERROR, id="STREAM_OPEN"
        ),
        pytest.param(frames.serialize(frames.DATA, 99, b"x"), Code.PROTOCOL_ERROR, id="no stream"),
        pytest.param(frames.serialize(0x3F, 0), Code.PROTOCOL_ERROR, id="unknown type"),
        pytest.param(frames.serialize(frames.BIND, 0, b"{"), Code.PROTOCOL_ERROR, id="bad JSON"),
        pytest.param(
            frames.serialize(frames.WINDOW, 0, bytes(4)), Code.PROTOCOL_ERROR, id="WINDOW 0"
        ),
        pytest.param(b"\x12\x00", Code.PROTOCOL_ERROR, id="truncated"),
    ],
)
async def test_an_agent_that_breaks_the_protocol_is_ended_with_a_reason(
    message: bytes, code: Code
) -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        hello = await driver.greet()
        await driver.bind(subdomain="shop")

        await driver.send_message(message)

        farewell, closed = await driver.goodbye()
        assert (farewell.code, closed) == (code, 1002)
        assert farewell.message
        assert rig.base.registry.sessions == {}
        session = rig.base.session(is_open=False)
        assert not rig.base.registry.find_resumable(hello.session_id, session.principal)


async def test_frames_of_the_future_and_texts_are_ignored() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()

        await driver.send(0x7E, b"?")
        await driver.send_message("text")

        assert (await driver.bind()).bind_id


async def test_a_session_closed_by_order_is_told_why() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()

        await rig.base.registry.close_token("token-1", "the token was deleted")

        farewell, closed = await driver.goodbye()
        assert (farewell.message, closed) == ("the token was deleted", 1002)


async def test_an_agent_may_close_its_connections_itself_during_the_grace() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        session, receiver = only_session(rig), Received()
        stream = session.upstream.open_stream(tunnel, receiver, "192.0.2.9:1")

        await rig.base.registry.close_session(session, "closed by admin", grace_seconds=30.0)

        farewell = messages.GoAway.decode(await driver.payload(frames.GOAWAY))
        assert (farewell.code, farewell.message) == (Code.PROTOCOL_ERROR, "closed by admin")
        assert receiver.reset is None
        assert stream.is_open
        with pytest.raises(NoSession):
            session.upstream.open_stream(tunnel, Received(), "192.0.2.9:2")
        await driver.send(frames.BIND, messages.Bind(client_bind_ref=2, kind="http").encode())
        refusal = messages.BindErr.decode(await driver.payload(frames.BIND_ERR))
        assert (refusal.client_bind_ref, refusal.code) == (2, "INTERNAL")
        driver.break_off()
        await until(lambda: receiver.reset is not None)
        assert rig.base.registry.parked == {}
        assert rig.agents.by_id == {}


async def test_an_agent_that_stays_is_closed_when_the_grace_is_over() -> None:
    async with agent_rig() as rig, rig.driver() as primary, rig.driver() as secondary:
        hello = await primary.greet(capabilities=MULTI, max_connections=3)
        join = messages.Join(
            session_id=hello.session_id, index=1, nonce=hello.join_tickets[0].nonce
        )
        await secondary.send(frames.JOIN, join.encode())
        await secondary.frame(frames.JOIN_OK)
        loop = asyncio.get_running_loop()
        begun = loop.time()

        await rig.base.registry.close_session(only_session(rig), "bye", grace_seconds=0.2)

        farewell, closed = await primary.goodbye()
        assert (farewell.message, closed) == ("bye", 1002)
        # The loop's clock goes by whole milliseconds.
        assert loop.time() - begun >= 0.195
        assert await secondary.closed() == 1001
        assert rig.agents.by_id == {}


async def test_a_connection_that_is_refused_before_the_upgrade_is_not_opened() -> None:
    async with agent_rig() as rig:
        rig.agents.is_draining = True

        with pytest.raises(InvalidStatus) as refused:
            await rig.driver().__aenter__()

        assert refused.value.response.status_code == 503


async def test_a_secondary_that_answers_no_ping_is_given_up_and_the_session_goes_on() -> None:
    async with (
        agent_rig(ping_seconds=0.05, silence_seconds=0.1) as rig,
        rig.driver() as primary,
        rig.driver(secret=None) as secondary,
    ):
        hello = await primary.greet(capabilities=MULTI, max_connections=2)
        join = messages.Join(
            session_id=hello.session_id, index=1, nonce=hello.join_tickets[0].nonce
        )
        await secondary.send(frames.JOIN, join.encode())
        await secondary.payload(frames.JOIN_OK)
        session = only_session(rig)
        assert session.connections == 2
        secondary.stop_reading()  # as a connection that a NAT has forgotten

        async with asyncio.TaskGroup() as group:
            answering = group.create_task(primary.frame(frames.BIND_REVOKED))  # pings, that is
            await until(lambda: session.connections == 1)
            answering.cancel()

        assert rig.base.registry.sessions == {hello.session_id: session}


async def test_nothing_may_follow_a_join_before_its_answer() -> None:
    async with agent_rig() as rig, rig.driver() as primary, rig.driver(secret=None) as secondary:
        hello = await primary.greet(capabilities=MULTI, max_connections=2)
        join = messages.Join(
            session_id=hello.session_id, index=1, nonce=hello.join_tickets[0].nonce
        )
        await secondary.send_message(
            frames.serialize(frames.JOIN, 0, join.encode()) + frames.serialize(frames.PONG, 0, b"x")
        )

        farewell, closed = await secondary.goodbye()

        assert (farewell.code, closed) == (Code.PROTOCOL_ERROR, 1002)
        session = only_session(rig)
        await until(lambda: session.connections == 1)


async def test_an_agent_that_binds_for_ever_and_answers_no_ping_costs_no_memory() -> None:
    async with agent_rig() as rig, rig.driver() as primary, rig.driver(secret=None) as secondary:
        hello = await primary.greet(capabilities=MULTI, max_connections=2)
        join = messages.Join(
            session_id=hello.session_id, index=1, nonce=hello.join_tickets[0].nonce
        )
        await secondary.send(frames.JOIN, join.encode())
        await secondary.payload(frames.JOIN_OK)
        primary.answers_pings = False
        for ref in range(1, 41):
            bind_id = (await primary.bind(ref)).bind_id
            await primary.send(frames.UNBIND, messages.Unbind(bind_id=bind_id).encode())
            await primary.payload(frames.UNBIND_OK)

        upstream = only_session(rig).upstream
        assert isinstance(upstream, HoodySession)
        assert len(upstream._unproven) <= 1
        assert len(upstream._announced) <= 1


async def test_an_agent_that_reads_nothing_is_sent_no_more_streams() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        driver.stop_reading()
        upstream = only_session(rig).upstream

        async def visit_for_ever() -> None:
            for number in range(1_000_000):
                upstream.open_stream(tunnel, Received(), "192.0.2.9:1").reset(Code.CANCEL)
                if number % 1000 == 0:
                    await asyncio.sleep(0)

        with pytest.raises(UpstreamBusy, match="does not read"):
            await visit_for_ever()

        assert upstream.buffered_bytes < 2 * MOST_UNREAD_BYTES
