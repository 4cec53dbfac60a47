"""Sessions: resumed, closed, drained."""

import asyncio

import pytest

from helpers.claimants import ANY_NAME, SHOP, issue, leases, principal
from helpers.edge_rig import registry_rig
from helpers.upstream import ScriptedUpstream
from helpers.waiting import until
from moleport_server.domain.token import ADMIN
from moleport_server.errors import NameTaken
from moleport_server.registry.observer import SessionEnd
from moleport_wire.hoody.frames import Code


async def test_a_session_without_tunnels_leaves_nothing() -> None:
    async with registry_rig() as rig:
        session = rig.session()

        rig.registry.lose_session(session, "lost", is_clean=False)
        rig.registry.lose_session(session, "lost again", is_clean=False)

        await rig.written()
        assert await rig.store.load_sessions() == []
        assert not rig.registry.find_resumable(session.id, ADMIN)


async def test_a_resumed_session_has_its_tunnels_again() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 3, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        assert rig.registry.find_resumable(session.id, ADMIN)
        again = rig.session(session_id=session.id, is_open=False)

        tunnels = rig.registry.resume_session(again)
        rig.registry.attach(again, tunnels)

        assert tunnels == [tunnel]
        assert again.tunnels == {3: tunnel}
        assert tunnel.lease_until is None
        (lease,) = await leases(rig)
        assert lease.until is None


async def test_what_is_taken_from_a_resumed_session_before_it_is_ready_stays_taken() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 3, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        upstream = ScriptedUpstream()
        again = rig.session(session_id=session.id, is_open=False, upstream=upstream)
        tunnels = rig.registry.resume_session(again)
        taker = rig.session()

        assert await rig.registry.claim(taker, 1, SHOP) is tunnel
        told = list(upstream.unbound)
        rig.registry.lose_session(taker, "lost", is_clean=False)
        rig.registry.attach(again, tunnels)

        assert [unbound for unbound, _ in told] == [tunnel]
        assert again.tunnels == {}
        assert (tunnel.session, tunnel.session_id) == (None, taker.id)


async def test_a_resumed_session_cannot_claim_what_it_has_again() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        await rig.registry.claim(session, 3, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.resume_session(again)

        with pytest.raises(NameTaken, match="by this agent"):
            await rig.registry.claim(again, 4, SHOP)


async def test_an_agent_that_is_not_ready_yet_is_told_that_its_tunnel_was_deleted() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 3, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        upstream = ScriptedUpstream()
        again = rig.session(session_id=session.id, is_open=False, upstream=upstream)
        rig.registry.resume_session(again)

        await rig.registry.close_tunnel(tunnel, "deleted")

        assert upstream.unbound == [(tunnel, "deleted")]


async def test_a_session_that_still_looks_alive_is_resumed_from_anywhere() -> None:
    async with registry_rig() as rig:
        old = ScriptedUpstream()
        session = rig.session(upstream=old)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        again = rig.session(session_id=session.id, peer="198.51.100.1:1", is_open=False)

        rig.registry.attach(again, rig.registry.resume_session(again))
        rig.registry.lose_session(session, "its old connection breaks", is_clean=False)

        assert old.ends == [(Code.NONE, "resumed on another connection")]
        assert tunnel.session is again
        assert rig.registry.sessions == {session.id: again}


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "parked"])
async def test_nobody_resumes_the_session_of_another_token(is_live: bool) -> None:
    async with registry_rig() as rig:
        session = rig.session(await issue(rig, principal("1")))
        await rig.registry.claim(session, 1, SHOP)
        if not is_live:
            rig.registry.lose_session(session, "lost", is_clean=False)

        assert rig.registry.find_resumable(session.id, principal("1"))
        assert not rig.registry.find_resumable(session.id, principal("2"))
        assert not rig.registry.find_resumable(session.id, ADMIN)
        assert not rig.registry.find_resumable("S-unknown", principal("1"))


async def test_a_closed_session_is_told_why_and_its_tunnels_are_released() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        await rig.registry.claim(session, 1, SHOP)

        await rig.registry.close_session(session, "closed by the admin")
        await rig.registry.close_session(session, "again")

        assert upstream.ends == [(Code.PROTOCOL_ERROR, "closed by the admin")]
        assert rig.registry.sessions == {}
        assert rig.registry.tunnels == {}


async def test_a_drained_session_ends_when_its_streams_have() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        stream = upstream.open_stream(tunnel, _Quiet(), "192.0.2.9:1")

        await rig.registry.close_session(session, "drained", drain_seconds=30)
        assert upstream.drains == [("drained", 30)]
        assert upstream.ends == []
        stream.reset(Code.CANCEL)

        await until(lambda: upstream.ends)


async def test_a_drained_session_ends_at_the_deadline() -> None:
    async with registry_rig() as rig:
        upstream = ScriptedUpstream()
        session = rig.session(upstream=upstream)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        upstream.open_stream(tunnel, _Quiet(), "192.0.2.9:1")
        await rig.registry.close_session(session, "drained", drain_seconds=30)
        await asyncio.sleep(0)  # it begins

        rig.clock.advance(31)

        await until(lambda: upstream.ends)


async def test_a_drained_session_ends_though_its_agent_came_back_meanwhile() -> None:
    async with registry_rig() as rig:
        upstream, other = ScriptedUpstream(), ScriptedUpstream()
        session = rig.session(upstream=upstream)
        tunnel = await rig.registry.claim(session, 1, SHOP)
        upstream.open_stream(tunnel, _Quiet(), "192.0.2.9:1")
        await rig.registry.close_session(session, "drained", drain_seconds=30)
        await asyncio.sleep(0)  # it begins
        again = rig.session(upstream=other, session_id=session.id, is_open=False)
        rig.registry.attach(again, rig.registry.resume_session(again))

        rig.clock.advance(31)

        await until(lambda: other.ends)
        assert rig.registry.tunnels == {}
        assert session.id in rig.registry.tombstones


@pytest.mark.parametrize("was_live", [True, False], ids=["live", "parked"])
async def test_a_session_that_is_lost_before_its_tunnels_are_attached_leaves_leases_that_end(
    was_live: bool,
) -> None:
    async with registry_rig(lease_seconds=60.0) as rig:
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        if not was_live:
            rig.registry.lose_session(session, "lost", is_clean=False)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.resume_session(again)

        rig.registry.lose_session(again, "lost again", is_clean=False)

        assert tunnel.lease_until == rig.clock.monotonic() + 60.0
        assert rig.registry.find_resumable(session.id, ADMIN)


async def test_a_session_that_ends_takes_along_what_was_not_attached_yet() -> None:
    async with registry_rig() as rig:
        session = rig.session()
        await rig.registry.claim(session, 1, SHOP)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.resume_session(again)
        await rig.registry.claim(again, 2, ANY_NAME)

        rig.registry.release_session(again, "goodbye", SessionEnd.GOODBYE)

        assert rig.registry.tunnels == {}


class _Quiet:
    def stream_data(self, data: object) -> None: ...
    def stream_eof(self) -> None: ...
    def stream_reset(self, code: int, reason: str) -> None: ...
    def stream_pause_writing(self) -> None: ...
    def stream_resume_writing(self) -> None: ...
