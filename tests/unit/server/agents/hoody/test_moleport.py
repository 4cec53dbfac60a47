"""Sessions of our own agent: what `moleport.1` adds, over real sockets."""

from ipaddress import ip_network
from typing import Any

import pytest

from helpers.agent_rig import SECRET, AgentRig, Driver, agent_rig, goaway
from helpers.edge_rig import DOMAIN
from helpers.waiting import until
from moleport_server.agents.hoody.moleport import REPORTS_PER_FRAME
from moleport_server.registry.live import Session, Tunnel
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Payload
from moleport_wire.passwords import hash_password

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


async def bound(driver: Driver, rig: AgentRig, **hello: Any) -> Tunnel:
    await driver.greet(**hello)
    await driver.bind(subdomain="shop")
    tunnel = rig.base.registry.lookup(HOST)
    assert tunnel is not None
    return tunnel


async def test_rules_for_visitors_come_with_the_bind() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        phc = str(hash_password("secret", b"0123456789abcdef"))
        await driver.bind(
            subdomain="shop",
            basic_auth=(messages.BasicUser(user="ann", password_hash=phc),),
            allowed_cidrs=("192.0.2.0/24",),
        )

        tunnel = rig.base.registry.lookup(HOST)
        assert tunnel is not None
        assert tunnel.rules.basic_auth is not None
        assert [user.user for user in tunnel.rules.basic_auth] == ["ann"]
        assert tunnel.rules.allowed_cidrs == (ip_network("192.0.2.0/24"),)


async def test_a_goodbye_keeps_the_names_without_a_hold() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)

        await driver.send(frames.GOAWAY, goaway())

        assert await driver.closed() == 1000
        assert rig.base.registry.sessions == {}
        assert tunnel.lease_until is not None
        assert not tunnel.may_hold


async def test_a_close_frame_without_a_goodbye_is_a_loss() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)

        await driver.close(1001)

        await until(lambda: not rig.base.registry.sessions)
        assert tunnel.may_hold


async def test_a_token_is_proved_again_on_the_live_session() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()
        session = only_session(rig)
        before = session.principal

        await driver.send(frames.REAUTH, messages.Reauth(token=SECRET).encode())
        await driver.frame(frames.REAUTH_OK)

        assert session.principal is not before
        assert session.principal.token_id == before.token_id


@pytest.mark.parametrize("secret", ["wrong", "other"])
async def test_a_token_that_proves_nothing_or_somebody_else_changes_nothing(secret: str) -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await rig.issue("other", token_id="token-2")
        await driver.greet()
        before = only_session(rig).principal

        await driver.send(frames.REAUTH, messages.Reauth(token=secret).encode())

        refusal = messages.Refusal.decode(await driver.payload(frames.REAUTH_ERR))
        assert refusal.code == "INVALID_TOKEN"
        assert secret not in refusal.message.split()
        assert only_session(rig).principal is before


async def test_a_drain_tells_the_deadline_and_leaves_the_session_alone() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        await driver.greet()

        rig.base.registry.drain("restart", 12.5)

        drain = messages.Drain.decode(await driver.payload(frames.DRAIN))
        assert (drain.deadline_ms, drain.reason) == (12_500, "restart")
        assert (await driver.bind()).bind_id


async def test_finished_requests_are_reported_to_who_wants_them_in_bounded_batches() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig, wants_reports=True)
        upstream = only_session(rig).upstream
        for _ in range(REPORTS_PER_FRAME + 7):
            upstream.report(tunnel, b"GET", b"/path?secret=1", 200, 0.0125, "192.0.2.9:1")

        report = messages.Report.decode(await driver.payload(frames.REPORT))

        assert len(report.requests) == REPORTS_PER_FRAME
        assert report.skipped == 7
        row = report.requests[0]
        assert (row.bind_id, row.method, row.path, row.status) == (
            tunnel.bind_id,
            "GET",
            "/path",
            200,
        )
        assert row.duration_ms == 12.5


async def test_nothing_is_reported_to_who_does_not_want_it() -> None:
    async with agent_rig() as rig, rig.driver() as driver:
        tunnel = await bound(driver, rig)
        upstream = only_session(rig).upstream

        upstream.report(tunnel, b"GET", b"/", 200, 0.1, "")
        await driver.send(frames.PING, b"marker")

        kind, _, _ = await driver.frame(frames.PONG, frames.REPORT)
        assert kind == frames.PONG
