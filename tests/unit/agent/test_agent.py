"""The agent against a server that the test plays: what it does when things go wrong, and right."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.tunnel_server import SHOP, running_agent, tunnel_server
from helpers.waiting import until
from moleport_agent import agent as agent_module
from moleport_agent.agent import Backoff
from moleport_agent.events import (
    Connected,
    Connecting,
    Disconnected,
    Draining,
    TunnelOpened,
    TunnelRefused,
)
from moleport_agent.settings import Secret, Target, TunnelSettings
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code

SSH = TunnelSettings(name="ssh", protocol="tcp", target=Target(text="22", port=22))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def goaway(code: int, text: str = "no") -> bytes:
    return messages.GoAway(code=code, message=text).encode()


# Backoff


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.5), (1.0, 1.0)])
def test_attempts_come_at_once_then_eagerly_then_ever_more_seldom(
    jitter: float, factor: float
) -> None:
    backoff = Backoff(0.5, 4.0, lambda: jitter)

    first = backoff.next_delay()
    eager: list[float] = []
    while sum(eager) < 10.0:
        eager.append(backoff.next_delay())
    later = [backoff.next_delay() for _ in range(6)]

    assert first == 0.0
    assert eager == pytest.approx([0.2 * factor] * len(eager))
    assert later == pytest.approx([x * factor for x in (0.5, 1.0, 2.0, 4.0, 4.0, 4.0)])
    assert backoff.attempt == 1 + len(eager) + 6


def test_attempts_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 4.0, lambda: 0.5)
    for _ in range(100):
        backoff.next_delay()

    backoff.reset()

    assert backoff.attempt == 0
    assert backoff.next_delay() == 0.0
    assert backoff.next_delay() < 0.2


def test_whoever_is_refused_is_not_eager() -> None:
    backoff = Backoff(0.5, 4.0, lambda: 1.0)

    delays = []
    for _ in range(5):
        backoff.refused()
        assert backoff.pause == pytest.approx(backoff.next_delay())
        delays.append(backoff.pause)

    assert delays == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0])


# Life


async def test_an_agent_opens_its_tunnels_and_says_goodbye_when_stopped() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        hello = await connection.hello()
        await connection.grant()
        bind = await connection.bind()
        await connection.give(bind)
        opened = await agent.event(TunnelOpened)

        agent.stop.set()
        farewell = messages.GoAway.decode(await connection.payload(frames.GOAWAY))
        connection.break_off()

        assert connection.token == "token-1"
        assert messages.CAPABILITY_MOLEPORT in hello.capabilities
        assert hello.resume_session_id is None
        assert (bind.kind, bind.hostname, bind.is_wish) == ("http", None, False)
        assert opened == TunnelOpened("shop", "https://shop.test", "3000")
        assert farewell.code == Code.NONE
        assert await agent.exit_code() == 0


@pytest.mark.parametrize("when", ["dialling", "greeting", "waiting"])
async def test_an_agent_can_be_stopped_at_any_time(when: str) -> None:
    async with tunnel_server() as server:
        if when == "waiting":
            server.refuse_with = 503
        async with running_agent(server) as agent:
            await agent.event(Connecting)
            if when == "greeting":
                await (await server.accept()).hello()
            elif when == "waiting":
                await agent.event(Disconnected)

            agent.stop.set()

            assert await agent.exit_code() == 0


async def test_a_lost_connection_is_resumed() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        connection.break_off()

        again = await server.accept()
        hello = await again.hello()
        bound = messages.ResumedBind(
            bind_id=1, kind="http", mode="expose", container_port=0, public_url="https://shop.test"
        )
        await again.grant(resumed=True, resumed_binds=(bound,))

        assert hello.resume_session_id == "S-1"
        await agent.event(TunnelOpened, number=2)
        assert (await agent.event(Connected, number=2)).resumed
        assert not any(isinstance(event, TunnelRefused) for event in agent.events)


async def test_a_binding_that_was_lost_meanwhile_is_asked_for_again() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        connection.break_off()

        again = await server.accept()
        await again.hello()
        await again.grant(resumed=True)
        bind = await again.bind()

        assert (bind.hostname, bind.is_wish) == ("shop.test", True)


async def test_a_server_that_forgot_the_session_is_asked_for_the_same_names() -> None:
    async with tunnel_server() as server, running_agent(server, SHOP, SSH) as agent:
        connection = await server.accept()
        await connection.hello()
        await connection.grant()
        for _ in range(2):
            bind = await connection.bind()
            if bind.kind == "http":
                await connection.give(bind, 1)
            else:
                await connection.give(bind, 2, "tcp://shop.test:20007")
        await agent.event(TunnelOpened, number=2)
        connection.break_off()

        again = await server.accept()
        await again.hello()
        await again.grant("S-2")
        binds = {bind.kind: bind for bind in [await again.bind(), await again.bind()]}

        assert (binds["http"].hostname, binds["http"].is_wish) == ("shop.test", True)
        assert (binds["tcp"].port, binds["tcp"].is_wish) == (20_007, True)


@pytest.mark.parametrize("code", [Code.PROTOCOL_ERROR, Code.NONE])
async def test_a_session_that_the_server_ended_is_followed_by_another(code: Code) -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        await connection.send(frames.GOAWAY, goaway(code, "closed by the admin"))
        connection.break_off()

        hello = await (await server.accept()).hello()

        assert hello.resume_session_id == ("S-1" if code == Code.NONE else None)
        assert (await agent.event(Disconnected)).reason == "closed by the admin"


async def test_a_draining_server_is_left_while_its_streams_finish() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        old = await server.accept()
        await old.serve_shop()
        await agent.event(TunnelOpened)

        drain = messages.Drain(deadline_ms=30_000, reason="restart")
        await old.send(frames.DRAIN, drain.encode())
        new = await server.accept()
        await new.hello()
        await new.grant("S-2")
        await new.give(await new.bind())

        assert (await agent.event(Draining)) == Draining(30.0, "restart")
        await old.send(frames.PING, b"still there")
        assert await old.payload(frames.PONG) == b"still there"
        await agent.event(TunnelOpened, number=2)
        old.break_off()
        new.answers_pings = True
        await new.send(frames.PING, b"x")
        assert await new.payload(frames.PONG) == b"x"


# Refusals


async def test_a_token_refused_at_the_first_login_ends_the_agent() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.hello()
        await connection.send(frames.GOAWAY, goaway(Code.AUTH, "invalid token"))

        assert await agent.exit_code() == 4
        assert await agent.event(Disconnected) == Disconnected("invalid token", None)


@pytest.mark.parametrize("status", [401, 403])
async def test_an_upgrade_refused_for_the_token_ends_the_agent(status: int) -> None:
    async with tunnel_server() as server:
        server.refuse_with = status
        async with running_agent(server) as agent:
            assert await agent.exit_code() == 4


@pytest.mark.parametrize("status", [404, 429, 502, 503])
async def test_other_refusals_are_for_now(status: int) -> None:
    async with tunnel_server() as server:
        server.refuse_with = status
        async with running_agent(server) as agent:
            await until(lambda: server.refused >= 3)
            assert not agent.task.done()
            server.refuse_with = None

            await (await server.accept()).serve_shop()

            await agent.event(TunnelOpened)


async def test_a_token_refused_later_may_be_about_to_rotate() -> None:
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        connection.break_off()

        again = await server.accept()
        await again.hello()
        await again.send(frames.GOAWAY, goaway(Code.AUTH, "expired"))
        again.break_off()

        await (await server.accept()).hello()
        assert not agent.task.done()


async def test_an_agent_whose_tunnels_are_all_refused_for_good_ends() -> None:
    async with tunnel_server() as server, running_agent(server, SHOP, SSH) as agent:
        connection = await server.accept()
        await connection.hello()
        await connection.grant()
        for _ in range(2):
            await connection.refuse(await connection.bind(), "FORBIDDEN", is_final=True)
        await connection.frame(frames.GOAWAY)
        connection.break_off()

        assert await agent.exit_code() == 5
        assert (await agent.event(TunnelRefused)).is_final


async def test_one_refused_tunnel_does_not_end_the_others() -> None:
    async with tunnel_server() as server, running_agent(server, SHOP, SSH) as agent:
        connection = await server.accept()
        await connection.hello()
        await connection.grant()
        for _ in range(2):
            bind = await connection.bind()
            if bind.kind == "tcp":
                await connection.refuse(bind, "FORBIDDEN", is_final=True)
            else:
                await connection.give(bind)
        await agent.event(TunnelRefused)
        await agent.event(TunnelOpened)

        await connection.send(frames.PING, b"x")
        assert await connection.payload(frames.PONG) == b"x"


async def test_a_tunnel_refused_for_now_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "REBIND_SECONDS", 0.01)
    async with tunnel_server() as server, running_agent(server) as agent:
        connection = await server.accept()
        await connection.hello()
        await connection.grant()
        await connection.refuse(await connection.bind(), "ALREADY_BOUND", is_final=False)

        await connection.give(await connection.bind())

        await agent.event(TunnelOpened)


async def test_a_server_that_cannot_be_reached_is_tried_again() -> None:
    async with tunnel_server() as server:
        port, server.port = server.port, 1
        async with running_agent(server) as agent:
            await agent.event(Disconnected, number=3)
            server.port = port

            assert not agent.task.done()


async def test_a_token_that_cannot_be_read_is_tried_again() -> None:
    answers: list[OSError | Secret] = [FileNotFoundError(2, "No such file"), Secret("late")]

    def read() -> Secret:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with tunnel_server() as server, running_agent(server, read_token=read) as agent:
        connection = await server.accept()

        assert connection.token == "late"
        assert (await agent.event(Disconnected)).reason == "No such file"


# Tokens that rotate


async def test_a_rotated_token_is_proved_on_the_live_session() -> None:
    token = [Secret("token-1")]
    async with (
        tunnel_server() as server,
        running_agent(server, read_token=lambda: token[0], token_poll_seconds=0.01) as agent,
    ):
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)

        token[0] = Secret("token-2")
        reauth = messages.Reauth.decode(await connection.payload(frames.REAUTH))
        await connection.send(frames.REAUTH_OK, b"{}")

        assert reauth.token == "token-2"
        token[0] = Secret("token-3")
        reauth = messages.Reauth.decode(await connection.payload(frames.REAUTH))
        assert reauth.token == "token-3"


async def test_a_rotated_token_that_is_not_accepted_is_tried_again_and_the_session_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = [Secret("token-1")]
    async with (
        tunnel_server() as server,
        running_agent(server, read_token=lambda: token[0], token_poll_seconds=0.01) as agent,
    ):
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        token[0] = Secret("token-2")
        await connection.frame(frames.REAUTH)

        refusal = messages.Refusal(code="INVALID_TOKEN", message="not yet")
        await connection.send(frames.REAUTH_ERR, refusal.encode())

        await connection.frame(frames.REAUTH)
        assert "the new token was not accepted" in caplog.text
        assert "token-2" not in caplog.text


# What is asked for


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"subdomain": "shop"}, {"subdomain": "shop"}, id="subdomain"),
        pytest.param({"hostname": "a.test"}, {"hostname": "a.test"}, id="hostname"),
        pytest.param({"host_header": "preserve"}, {"host_header": None}, id="preserve"),
        pytest.param({"host_header": "rewrite"}, {"host_header": "127.0.0.1:3000"}, id="rewrite"),
        pytest.param({"host_header": "a.local"}, {"host_header": "a.local"}, id="fixed host"),
        pytest.param(
            {"host_header": "rewrite", "target": Target(text="x", host="::1", port=80)},
            {"host_header": "[::1]"},
            id="rewrite to IPv6",
        ),
        pytest.param(
            {"host_header": "rewrite", "target": Target(text="x", unix_path=Path("/x"))},
            {"host_header": "localhost"},
            id="rewrite to a unix socket",
        ),
        pytest.param(
            {"allow_cidrs": ("192.0.2.0/24",)}, {"allowed_cidrs": ("192.0.2.0/24",)}, id="networks"
        ),
        pytest.param({"protocol": "tcp", "port": 20_001}, {"port": 20_001}, id="port"),
    ],
)
async def test_wishes_reach_the_server(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    async with tunnel_server() as server, running_agent(server, replace(SHOP, **changes)):
        connection = await server.accept()
        await connection.hello()
        await connection.grant()

        bind = await connection.bind()

        assert {name: getattr(bind, name) for name in expected} == expected
        assert not bind.is_wish


async def test_passwords_leave_the_agent_as_hashes_only() -> None:
    guarded = replace(SHOP, basic_auth=(("ann", Secret("s3cret")),))
    async with tunnel_server() as server, running_agent(server, guarded):
        connection = await server.accept()
        await connection.hello()
        await connection.grant()

        payload = await connection.payload(frames.BIND)

        (user,) = messages.Bind.decode(payload).basic_auth or ()
        assert user.user == "ann"
        assert user.password_hash.startswith("$scrypt$")
        assert b"s3cret" not in payload


async def test_several_connections_are_joined_by_tickets() -> None:
    tickets = tuple(
        messages.JoinTicket(index=index, nonce=f"n{index}", expires_ms=15_000) for index in (1, 2)
    )
    async with tunnel_server() as server, running_agent(server, connections=3) as agent:
        primary = await server.accept()
        hello = await primary.hello()
        await primary.grant(connections_granted=3, join_tickets=tickets)
        joins = set()
        for _ in tickets:
            secondary = await server.accept()
            join = messages.Join.decode(await secondary.payload(frames.JOIN))
            joins.add((join.session_id, join.index, join.nonce))
            if join.index == 1:
                await secondary.send(frames.JOIN_OK, b"{}")
            else:
                refusal = messages.Refusal(code="EXPIRED", message="too late")
                await secondary.send(frames.JOIN_ERR, refusal.encode())
        await primary.give(await primary.bind())

        assert (hello.max_connections, messages.CAPABILITY_MULTI in hello.capabilities) == (3, True)
        assert joins == {("S-1", 1, "n1"), ("S-1", 2, "n2")}
        await agent.event(TunnelOpened)


async def test_a_cancelled_agent_leaves_no_task_behind() -> None:
    async with tunnel_server() as server:
        async with running_agent(server) as agent:
            connection = await server.accept()
            await connection.serve_shop()
            await agent.event(TunnelOpened)

            agent.task.cancel()
            await connection.frame(frames.GOAWAY)
            connection.break_off()

            with pytest.raises(asyncio.CancelledError):
                await agent.exit_code()
        ours = {"stop", "ended", "bind shop", "watch the token file", "open a session"}
        await until(lambda: not ours & {task.get_name() for task in asyncio.all_tasks()})
