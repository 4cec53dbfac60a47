"""Sessions of stock clients over real sockets, where a process test would be too slow or too coarse."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.agent_rig import AgentRig, Driver, agent_rig, goaway
from helpers.waiting import until
from moleport_server.agents.hoody.session import StockSettings
from moleport_server.domain.token import Grant
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.container_ports import ContainerPortSettings
from moleport_server.registry.live import Session, Tunnel
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.exchanges import ExchangeOpen, ResponseHead
from moleport_wire.hoody.frames import Code, Payload

GET = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n"
V1: Any = {"version": messages.SUBPROTOCOL_V1, "capabilities": ()}
V2: Any = {
    "version": messages.SUBPROTOCOL_V2,
    "capabilities": (messages.CAPABILITY_MULTI,),
    "max_connections": 3,
}
PORTS = {"container_ports": ContainerPortSettings(expose=True, pull=True, hostname="port-{port}")}


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


def only_session(rig: AgentRig) -> Session:
    (session,) = rig.base.registry.sessions.values()
    return session


def only_tunnel(rig: AgentRig) -> Tunnel:
    (tunnel,) = rig.base.registry.tunnels.values()
    return tunnel


def v1(rig: AgentRig, **options: Any) -> Driver:
    return rig.driver(subprotocols=[messages.SUBPROTOCOL_V1], **options)


async def expose(driver: Driver, ref: int = 1, port: int = 30_001, **members: Any) -> Any:
    return await driver.bind(ref, "http", container_port=port, **members)


async def refused(driver: Driver, **members: Any) -> messages.BindErr:
    values: dict[str, Any] = {
        "client_bind_ref": 1,
        "kind": "http",
        "container_port": 30_001,
    } | members
    await driver.send(frames.BIND, messages.Bind(**values).encode())
    return messages.BindErr.decode(await driver.payload(frames.BIND_ERR))


# Handshake


async def test_a_stock_client_is_told_nothing_of_the_extension() -> None:
    async with agent_rig() as rig, v1(rig) as driver:
        await driver.send(frames.HELLO, messages.Hello(**V1).encode())
        answer = json.loads(await driver.payload(frames.HELLO_OK))

    assert set(answer) == {
        "sessionId",
        "resumed",
        "resumedBinds",
        "streamWindow",
        "sessionWindow",
        "connectionsGranted",
        "joinTickets",
    }
    assert (answer["connectionsGranted"], answer["joinTickets"]) == (1, [])
    assert answer["streamWindow"] % 65_536 == 0


async def test_small_windows_are_rounded_up_to_whole_frames() -> None:
    async with agent_rig(stream_window_bytes=20_000) as rig, v1(rig) as driver:
        assert (await driver.greet(**V1)).stream_window == 65_536


async def test_old_clients_get_large_windows() -> None:
    async with agent_rig() as rig, v1(rig, secret=None) as driver:
        hello = await driver.greet(**V1, token="agent-secret")

    assert hello.stream_window == 1024 * 1024


async def test_every_ticket_of_v2_can_be_used_once_and_none_under_v1() -> None:
    async with agent_rig() as rig, rig.driver() as primary:
        hello = await primary.greet(**V2)
        for ticket in hello.join_tickets:
            join = messages.Join(
                session_id=hello.session_id, index=ticket.index, nonce=ticket.nonce
            )
            secondary = await rig.driver(secret=None).__aenter__()
            await secondary.send(frames.JOIN, join.encode())
            assert await secondary.payload(frames.JOIN_OK)
            secondary.break_off()
        async with v1(rig, secret=None) as other:
            await other.send(frames.JOIN, join.encode())
            farewell, closed = await other.goodbye()

    assert (hello.connections_granted, len(hello.join_tickets)) == (3, 2)
    assert (farewell.code, closed) == (Code.PROTOCOL_ERROR, 1002)


# Binds


async def test_a_port_and_a_name_are_given_together() -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        bound = await expose(driver)

        tunnel = only_tunnel(rig)
        assert (bound.container_port, bound.public_url) == (30_001, tunnel.public_url)
        assert tunnel.hostname == "port-30001.tunnels.test"
        assert rig.base.registry.lookup("port-30001.tunnels.test") is tunnel


@pytest.mark.parametrize(
    ("grant", "has_name"),
    [(Grant(hostnames=()), False), (Grant(hostnames=("port-*",)), True)],
    ids=["no names", "names"],
)
async def test_a_grant_without_names_gives_the_port_alone(grant: Grant, has_name: bool) -> None:
    async with agent_rig(registry=PORTS) as rig:
        await rig.issue("other", token_id="token-2", grant=grant)
        async with v1(rig, secret="other") as driver:
            await driver.greet(**V1)
            bound = await expose(driver)

    assert (bound.public_url is not None) is has_name


@pytest.mark.parametrize(
    ("grant", "members", "code"),
    [
        (Grant(container_ports=((1, 2),)), {}, "FORBIDDEN"),
        (Grant(container_ports=()), {"container_port": 0}, "FORBIDDEN"),
        (Grant(protocols=(TunnelProtocol.TCP,)), {}, "FORBIDDEN"),
        (Grant(protocols=(TunnelProtocol.HTTP,)), {"kind": "tcp", "mode": "pull"}, "FORBIDDEN"),
        (Grant(), {"kind": "tcp"}, "INVALID_KIND"),
        (Grant(), {"mode": "pull"}, "INVALID_KIND"),
        (Grant(), {"kind": "udp"}, "INVALID_KIND"),
        (Grant(), {"kind": "tcp", "mode": "pull", "takeover": True}, "INVALID_KIND"),
        (Grant(), {"kind": "tcp", "mode": "pull", "host": "10.0.0.1"}, "INVALID_HOST"),
        (Grant(), {"container_port": 1}, "PRIVILEGED_PORT"),
        (Grant(), {"container_port": 1023}, "PRIVILEGED_PORT"),
        (Grant(), {"container_port": 4040}, "RESERVED_PORT"),
        (Grant(), {"container_port": 70_000}, "INVALID_REQUEST"),
        (Grant(), {"label": "x" * 5000}, "INVALID_REQUEST"),
    ],
)
async def test_a_refused_bind_has_its_code_and_the_session_goes_on(
    grant: Grant, members: dict[str, Any], code: str
) -> None:
    ports = ContainerPortSettings(expose=True, pull=True, reserved=((4040, 4040),))
    async with agent_rig(registry={"container_ports": ports}) as rig:
        await rig.issue("other", token_id="token-2", grant=grant)
        async with v1(rig, secret="other") as driver:
            await driver.greet(**V1)
            refusal = await refused(driver, **members)

            assert (refusal.client_bind_ref, refusal.code) == (1, code)
            assert only_session(rig).tunnels == {}


async def test_the_most_tunnels_of_a_session_are_a_cap() -> None:
    settings = PORTS | {"max_tunnels_per_session": 1}
    async with agent_rig(registry=settings) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)

        assert (await refused(driver, container_port=30_002)).code == "BIND_CAP_EXCEEDED"


async def test_no_free_port_is_a_matter_of_the_server() -> None:
    ports = ContainerPortSettings(expose=True, random_ports=(30_001, 30_002))
    async with agent_rig(registry={"container_ports": ports}) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        drawn = {(await expose(driver, ref, 0)).container_port for ref in (1, 2)}

        assert drawn == {30_001, 30_002}
        assert (await refused(driver, container_port=0)).code == "INTERNAL"


async def test_a_bind_without_a_usable_reference_ends_the_session() -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await driver.send(frames.BIND, b'{"kind":"http","mode":"expose","containerPort":1}')
        farewell, _ = await driver.goodbye()

    assert farewell.code == Code.PROTOCOL_ERROR


async def test_an_unbound_port_is_free_for_others() -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver, v1(rig) as other:
        await driver.greet(**V1)
        await other.greet(**V1)
        bound = await expose(driver)
        assert (await refused(other)).code == "ALREADY_BOUND"

        await driver.send(frames.UNBIND, messages.Unbind(bind_id=bound.bind_id).encode())
        await driver.payload(frames.UNBIND_OK)

        assert (await expose(other)).container_port == 30_001


# Streams


async def test_a_request_goes_out_as_an_exchange_and_its_answer_comes_back() -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        received, session = Received(), only_session(rig)

        stream = session.upstream.open_stream(only_tunnel(rig), received, "192.0.2.9:1")
        stream.write(GET)
        _, stream_id, payload = await driver.frame(frames.STREAM_OPEN)
        head = ResponseHead(status=200, fields=(("Content-Length", "2"),)).encode()
        await driver.send(frames.STREAM_RESPONSE_HEAD, head, stream_id)
        await driver.send(frames.DATA, b"ok", stream_id)
        await until(lambda: received.data.endswith(b"ok"))
        stream.reset(Code.CANCEL)
        await driver.send(frames.EOF, b"", stream_id)
        await driver.frame(frames.EOF)
        await until(lambda: session.upstream.open_streams == 0)

    assert ExchangeOpen.decode(payload).target == "/"


async def test_the_most_streams_of_a_client_are_a_cap() -> None:
    stock = StockSettings(max_streams=1)
    async with agent_rig(registry=PORTS, stock=stock) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)
        first = upstream.open_stream(tunnel, Received(), "")

        with pytest.raises(UpstreamBusy):
            upstream.open_stream(tunnel, Received(), "")
        first.reset(Code.CANCEL)
        upstream.open_stream(tunnel, Received(), "")


async def test_who_waits_in_line_is_told_when_the_session_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moleport_server.agents.hoody.stock.MAX_OPEN_EXCHANGES", 1)
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)
        visitors = [Received(), Received()]
        for visitor in visitors:
            upstream.open_stream(tunnel, visitor, "").write(GET)

        driver.break_off()
        await until(lambda: all(visitor.reset for visitor in visitors))

        assert upstream.open_streams == 0
        with pytest.raises(NoSession):
            upstream.open_stream(tunnel, Received(), "")


async def test_the_next_in_line_goes_when_a_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moleport_server.agents.hoody.stock.MAX_OPEN_EXCHANGES", 1)
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)
        first, left, second = (upstream.open_stream(tunnel, Received(), "") for _ in range(3))
        for stream, path in ((first, b"/1"), (left, b"/left"), (second, b"/2")):
            stream.write(GET.replace(b"/", path, 1))

        one = ExchangeOpen.decode(await driver.payload(frames.STREAM_OPEN))
        left.reset(Code.CANCEL)
        first.reset(Code.CANCEL)
        two = ExchangeOpen.decode(await driver.payload(frames.STREAM_OPEN))

    assert (one.target, two.target) == ("/1", "/2")


# The end


async def test_a_client_that_answers_no_ping_is_gone_and_its_port_is_kept() -> None:
    stock = StockSettings(ping_seconds=0.02, pong_seconds=0.5)
    async with agent_rig(registry=PORTS, stock=stock) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        driver.answers_pings = False

        farewell, _ = await driver.goodbye()

        assert (farewell.code, farewell.message) == (Code.IDLE_TIMEOUT, "pong timeout")
        assert len(rig.base.registry.parked) == 1
        assert only_tunnel(rig).lease_until is not None


async def test_a_session_with_nothing_in_it_ends() -> None:
    stock = StockSettings(ping_seconds=0.02, idle_seconds=0.1)
    async with agent_rig(registry=PORTS, stock=stock) as rig, v1(rig) as driver:
        await driver.greet(**V1)

        farewell, _ = await driver.goodbye()

        assert (farewell.code, farewell.message) == (Code.IDLE_TIMEOUT, "session idle timeout")
        assert rig.base.registry.sessions == {}


@pytest.mark.parametrize(
    ("close_code", "is_kept"), [(1000, False), (1001, True), (4000, True), (None, True)]
)
async def test_what_a_close_code_means_for_the_port(close_code: int | None, is_kept: bool) -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)

        if close_code is None:
            driver.break_off()
        else:
            await driver.close(close_code)
        await until(lambda: not rig.base.registry.sessions)

        assert bool(rig.base.registry.tunnels) is is_kept
        assert bool(rig.base.registry.parked) is is_kept


async def test_a_goodbye_frame_releases_everything() -> None:
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)

        await driver.send(frames.GOAWAY, goaway())
        await until(lambda: not rig.base.registry.sessions)

        assert rig.base.registry.tunnels == {}


async def test_a_resumed_session_that_is_lost_before_it_settled_can_be_resumed_again() -> None:
    async with agent_rig(registry=PORTS) as rig:
        async with v1(rig) as driver:
            session_id = (await driver.greet(**V1)).session_id
            await expose(driver)
            driver.break_off()
            await until(lambda: bool(rig.base.registry.parked))
        for _ in range(3):
            async with v1(rig) as driver:
                hello = await driver.greet(**V1, resume_session_id=session_id)
                driver.break_off()
                await until(lambda: bool(rig.base.registry.parked))
                assert (hello.resumed, len(hello.resumed_binds)) == (True, 1)


async def test_a_resumed_client_is_told_that_its_port_was_taken_over_before_it_was_ready() -> None:
    async with agent_rig(registry=PORTS) as rig:
        async with rig.driver() as driver:
            session_id = (await driver.greet(**V2)).session_id
            bound = await expose(driver)
            driver.break_off()
            await until(lambda: bool(rig.base.registry.parked))
        async with rig.driver() as driver, v1(rig) as other:
            # It is not ready before all of its sockets have joined.
            hello = await driver.greet(**V2, resume_session_id=session_id)
            await other.greet(**V1)
            taken = await expose(other, takeover=True)
            revoked = messages.BindRevoked.decode(await driver.payload(frames.BIND_REVOKED))

            assert [bind.bind_id for bind in hello.resumed_binds] == [bound.bind_id]
            assert revoked.bind_id == bound.bind_id
            assert taken.container_port == bound.container_port
            assert session_id in rig.base.registry.sessions


async def test_a_session_whose_time_is_over_is_refused_for_good() -> None:
    settings = PORTS | {"lease_seconds": 0.0}
    async with agent_rig(registry=settings) as rig:
        async with v1(rig) as driver:
            session_id = (await driver.greet(**V1)).session_id
            await expose(driver)
            driver.break_off()
        await until(lambda: not rig.base.registry.tunnels)
        async with v1(rig) as driver:
            hello = messages.Hello(**V1, resume_session_id=session_id)
            await driver.send(frames.HELLO, hello.encode())
            farewell, closed = await driver.goodbye()

    assert (farewell.message, closed) == ("resume grace expired", 1008)


async def test_uploads_that_wait_are_bounded_and_pages_are_not_their_victims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moleport_server.agents.hoody.stock.MAX_OPEN_EXCHANGES", 1)
    monkeypatch.setattr("moleport_server.agents.hoody.stock.MAX_WAITING_BODIES", 1)
    async with agent_rig(registry=PORTS) as rig, v1(rig) as driver:
        await driver.greet(**V1)
        await expose(driver)
        upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)
        visitors = [Received() for _ in range(4)]
        upload = b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 1\r\n\r\nx"
        for visitor, sent in zip(visitors, (GET, upload, upload, GET), strict=True):
            upstream.open_stream(tunnel, visitor, "").write(sent)
        await until(lambda: visitors[2].reset is not None)

        assert [visitor.reset and visitor.reset[0] for visitor in visitors] == [
            None,
            None,
            Code.CALM_DOWN,
            None,
        ]
        assert upstream.open_streams == 3


# Sockets


async def test_pages_take_the_emptiest_socket_and_all_else_the_first() -> None:
    # An answer behind our EOF comes on the first; over another one it could overtake itself.
    async with agent_rig(registry=PORTS) as rig, rig.driver() as primary:
        hello = await primary.greet(**V2)
        await expose(primary)
        ticket = hello.join_tickets[0]
        async with rig.driver(secret=None) as secondary:
            join = messages.Join(
                session_id=hello.session_id, index=ticket.index, nonce=ticket.nonce
            )
            await secondary.send(frames.JOIN, join.encode())
            await secondary.payload(frames.JOIN_OK)
            upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)

            for request in (
                b"POST /1 HTTP/1.1\r\nHost: pod\r\nContent-Length: 1\r\n\r\nx",
                GET,
                b"GET /2 HTTP/1.1\r\nHost: pod\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                b"DELETE /3 HTTP/1.1\r\nHost: pod\r\n\r\n",
            ):
                upstream.open_stream(tunnel, Received(), "192.0.2.9:1").write(request)

            on_the_first = [await primary.frame(frames.STREAM_OPEN) for _ in range(3)]
            on_the_second = await secondary.frame(frames.STREAM_OPEN)

    assert [json.loads(payload)["target"] for _, _, payload in on_the_first] == ["/1", "/2", "/3"]
    assert json.loads(on_the_second[2])["method"] == "GET"


@pytest.mark.parametrize(
    ("first", "second", "tickets"),
    [pytest.param(V1, V2, 2, id="v1 to v2"), pytest.param(V2, V1, 0, id="v2 to v1")],
)
async def test_a_session_of_one_version_is_resumed_by_the_other(
    first: Any, second: Any, tickets: int
) -> None:
    async with agent_rig(registry=PORTS) as rig:
        async with rig.driver(subprotocols=[first["version"]]) as driver:
            session_id = (await driver.greet(**first)).session_id
            await expose(driver)
            driver.break_off()
            await until(lambda: bool(rig.base.registry.parked))
        async with rig.driver(subprotocols=[second["version"]]) as driver:
            hello = await driver.greet(**second, resume_session_id=session_id)

            assert (hello.session_id, hello.resumed, len(hello.resumed_binds)) == (
                session_id,
                True,
                1,
            )
            assert len(hello.join_tickets) == tickets
            assert only_session(rig).protocol == second["version"]


# Whatever a client sends

_TYPES = st.sampled_from(
    [*range(0x01, 0x0E), *range(0x10, 0x17), 0x20, 0x21, 0x30, 0x40, 0x55, 0x99]
)
_PAYLOADS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"{}",
            b"{",
            b'{"clientBindRef":1,"kind":"http","mode":"expose","containerPort":0}',
            b'{"clientBindRef":2,"kind":"tcp","mode":"pull","containerPort":0,"takeover":true}',
            b'{"bindId":1}',
            b'{"status":200,"headers":[["a","b"]],"final":true}',
            b'{"status":101,"headers":[],"final":true}',
            b'{"code":0,"message":"bye"}',
            (4096).to_bytes(4, "big"),
            bytes(65_536),
        ]
    ),
)
_FRAMES = st.tuples(_TYPES, st.sampled_from([0, 0, 2, 3, 4, 9]), _PAYLOADS)


class Silent:
    """A transport that takes everything and says nothing."""

    peer = "192.0.2.1:1"
    buffered_bytes = 0
    awaits_pong = False

    def __init__(self) -> None:
        self.ends: list[str] = []

    def limit_buffer(self, limit_bytes: int) -> None: ...
    def send(self, message: bytes) -> None: ...
    def ping(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.ends.append(reason)

    def abort(self) -> None:
        self.ends.append("abort")


@given(st.lists(st.lists(_FRAMES, min_size=1, max_size=4), max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_frames_in_any_order_leave_nothing_behind(
    dialogue: list[list[tuple[int, int, bytes]]], is_old: bool
) -> None:
    async def talk() -> None:
        async with agent_rig(registry=PORTS) as rig:
            connection = rig.agents.connection(
                subprotocol=messages.SUBPROTOCOL_V1,
                secret=None,
                address="192.0.2.1",
                on_authenticated=lambda: None,
            )
            transport = Silent()
            connection.transport_opened(transport)
            hello = messages.Hello(**V1, token="agent-secret" if is_old else None)
            connection._secret = None if is_old else "agent-secret"
            connection.message_received(frames.serialize(frames.HELLO, 0, hello.encode()))
            registry = rig.base.registry
            await until(lambda: bool(registry.sessions))
            bind = messages.Bind(client_bind_ref=9, kind="http", container_port=30_001)
            connection.message_received(frames.serialize(frames.BIND, 0, bind.encode()))
            await until(lambda: bool(registry.tunnels))
            await asyncio.sleep(0)
            upstream, tunnel = only_session(rig).upstream, only_tunnel(rig)
            await until(lambda: 1 in upstream._announced)  # type: ignore[attr-defined]
            visitors = [Received() for _ in range(3)]
            for visitor in visitors:
                upstream.open_stream(tunnel, visitor, "192.0.2.9:1").write(GET)

            for message in dialogue:
                connection.message_received(
                    b"".join(frames.serialize(kind, sid, data) for kind, sid, data in message)
                )
                await asyncio.sleep(0)
            connection.transport_lost(1000, "")
            await until(lambda: not registry.sessions and not registry.tunnels)

            assert upstream.open_streams == 0
            assert all(visitor.reset or visitor.has_eof for visitor in visitors)
            assert rig.agents.budget.committed_bytes == 0

    asyncio.run(talk())
