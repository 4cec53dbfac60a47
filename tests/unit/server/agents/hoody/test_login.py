"""How agents get in, over real sockets, against a driver by another WebSocket library."""

import contextlib
import gc
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from multidict import CIMultiDict
from websockets.exceptions import ConnectionClosed

from helpers.agent_rig import ADMIN_SECRET, HELLO, SECRET, AgentRig, agent_rig, goaway
from helpers.waiting import until
from moleport_server.agents.hoody.login import AgentConnection
from moleport_server.domain.token import Grant, Limits
from moleport_server.edge.front import FrontConnection
from moleport_server.registry.live import Session
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code


def only_session(rig: AgentRig) -> Session:
    (session,) = rig.base.registry.sessions.values()
    return session


async def test_hello_with_a_good_token_opens_a_session() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        hello = await driver.greet(agent="moleport 1.0 (Linux)")

        assert driver.subprotocol == messages.SUBPROTOCOL_V2
        assert not hello.resumed
        assert hello.capabilities == (messages.CAPABILITY_MOLEPORT,)
        assert hello.lease_seconds == 60
        assert hello.connections_granted == 1
        session = only_session(rig)
        assert session.id == hello.session_id
        assert session.agent == "moleport 1.0 (Linux)"
        assert session.principal.token_id == "token-1"
        assert rig.gate.waiting == 0


@pytest.mark.parametrize(
    ("options", "hello"),
    [
        pytest.param({"secret": None, "query": f"?token={SECRET}"}, {}, id="in the query"),
        pytest.param({"secret": None}, {"token": SECRET}, id="in HELLO"),
        pytest.param({"secret": ADMIN_SECRET}, {}, id="the admin's"),
        pytest.param({}, {"token": "ignored: the upgrade had one"}, id="upgrade before HELLO"),
    ],
)
async def test_a_credential_may_come_in_several_places(
    options: dict[str, Any], hello: dict[str, Any]
) -> None:
    async with agent_rig() as rig, rig.driver(**options) as driver:
        assert (await driver.greet(**hello)).session_id


def _hello(**changes: Any) -> bytes:
    return frames.serialize(frames.HELLO, 0, replace(HELLO, **changes).encode())


@pytest.mark.parametrize(
    ("options", "message", "code", "close_code"),
    [
        pytest.param({"secret": "wrong"}, _hello(), Code.AUTH, 1008, id="wrong token"),
        pytest.param({"secret": None}, _hello(), Code.AUTH, 1008, id="no token"),
        pytest.param(
            {"secret": "wrong"},
            _hello(resume_session_id="S-1"),
            Code.AUTH,
            1002,
            id="wrong token while resuming",
        ),
        pytest.param(
            {}, _hello(version="hoody-tunnel.v1"), Code.VERSION_MISMATCH, 1002, id="another version"
        ),
        pytest.param(
            {}, frames.serialize(frames.HELLO, 0, b"{"), Code.PROTOCOL_ERROR, 1002, id="no JSON"
        ),
        pytest.param(
            {}, frames.serialize(frames.HELLO, 0, b"[]"), Code.PROTOCOL_ERROR, 1002, id="no object"
        ),
        pytest.param(
            {}, frames.serialize(frames.HELLO, 0, b"{}"), Code.PROTOCOL_ERROR, 1002, id="no version"
        ),
        pytest.param(
            {}, frames.serialize(frames.BIND, 0, b"{}"), Code.PROTOCOL_ERROR, 1002, id="BIND first"
        ),
        pytest.param(
            {}, frames.serialize(frames.DATA, 2, b"x"), Code.PROTOCOL_ERROR, 1002, id="DATA first"
        ),
        pytest.param(
            {}, frames.serialize(frames.HELLO, 2, b"{}"), Code.PROTOCOL_ERROR, 1002, id="stream id"
        ),
        pytest.param({}, _hello() + _hello(), Code.PROTOCOL_ERROR, 1002, id="two HELLOs"),
        pytest.param({}, b"\x01", Code.PROTOCOL_ERROR, 1002, id="truncated"),
        pytest.param({}, b"\xff" * 9, Code.FRAME_SIZE, 1002, id="huge frame"),
        pytest.param({}, b"", Code.PROTOCOL_ERROR, 1002, id="empty message"),
    ],
)
async def test_a_bad_greeting_is_refused_with_a_reason(
    options: dict[str, Any], message: bytes, code: Code, close_code: int
) -> None:
    async with agent_rig() as rig, rig.driver(**options) as driver:
        await driver.send_message(message)

        refusal, closed = await driver.goodbye()

        assert refusal.code == code
        assert refusal.message
        assert closed == close_code
        assert rig.base.registry.sessions == {}
        await until(lambda: rig.gate.waiting == 0)


async def test_a_server_that_drains_refuses_a_late_greeting() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        rig.agents.is_draining = True
        await driver.send_message(_hello())

        _, closed = await driver.goodbye()

        assert closed == 1013


async def test_an_agent_from_a_forbidden_network_is_refused() -> None:
    async with agent_rig() as rig:
        grant = Grant(agent_cidrs=(ip_network("192.0.2.0/24"),))
        await rig.issue("office", token_id="token-2", grant=grant)
        async with rig.driver(secret="office") as driver:
            await driver.send_message(_hello())

            refusal, closed = await driver.goodbye()

            assert (refusal.code, closed) == (Code.AUTH, 1008)
            assert "127.0.0.1" in refusal.message


async def test_an_agent_too_many_is_told_so() -> None:
    async with agent_rig() as rig:
        await rig.issue("one", token_id="token-2", limits=Limits(max_agents=1))
        async with rig.driver(secret="one") as first, rig.driver(secret="one") as second:
            await first.greet()
            await second.send_message(_hello())

            refusal, closed = await second.goodbye()

            assert (refusal.code, closed) == (Code.EXHAUSTED, 1013)


async def test_who_guesses_tokens_is_slowed_down_and_a_good_token_still_works() -> None:
    async with agent_rig() as rig:
        codes = []
        for i in range(12):
            async with rig.driver(secret=f"guess-{i}") as driver:
                await driver.send_message(_hello())
                codes.append((await driver.goodbye())[0].code)
        assert codes[0] == Code.AUTH
        assert codes[-1] == Code.CALM_DOWN

        async with rig.driver() as driver:
            assert (await driver.greet()).session_id


async def test_an_agent_that_says_nothing_is_dropped() -> None:
    async with agent_rig(first_frame_seconds=0.05) as rig, rig.driver() as driver:
        assert await driver.closed() is None
        await until(lambda: rig.gate.waiting == 0)


async def test_an_agent_may_leave_before_it_is_answered() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.send_message(_hello() + frames.serialize(frames.GOAWAY, 0, goaway()))

        assert await driver.closed() == 1000
        await until(lambda: not rig.base.tasks.count)
        assert rig.base.registry.sessions == {}


# Resume


async def test_frames_behind_the_end_are_ignored() -> None:
    async with agent_rig() as rig, rig.driver(secret="wrong") as driver:
        await driver.send_message(_hello())
        await driver.frame(frames.GOAWAY)
        with contextlib.suppress(ConnectionClosed):
            await driver.send_message(_hello())
            await driver.send_message(b"garbage")

        assert await driver.closed() == 1008
        assert rig.base.registry.sessions == {}


async def test_nothing_that_only_the_login_needed_is_kept_for_an_agent() -> None:
    secret = "of-this-agent-alone"
    async with agent_rig() as rig:
        await rig.issue(secret, token_id="token-2")
        async with rig.driver(secret=secret) as driver:
            await driver.greet()
            gc.collect()

            kept = gc.get_objects()

            # Not `isinstance`, which asks weak proxies, also those whose object is gone.
            ours = [vars(o) for o in kept if type(o) is AgentConnection]
            (connection,) = (v for v in ours if rig.agents in v.values())
            assert secret not in connection.values()
            fronts = [vars(o) for o in kept if type(o) is FrontConnection]
            assert not [v for v in fronts if rig.front in v.values()]
            heads = [dict(o) for o in kept if type(o) is CIMultiDict]
            assert not [head for head in heads if secret in str(head)]
