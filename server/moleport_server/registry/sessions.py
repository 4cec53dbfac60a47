"""Sessions: opened, parked when the connection is lost, resumed, released.

A session that is live has its tunnels in `Session.tunnels`; those of a parked one, and of one that was
resumed and is not attached yet, lead to it by their `session_id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from moleport_server.clock import Clock
from moleport_server.domain.token import Principal
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.durable import DurableState
from moleport_server.registry.leases import Leases
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.notices import Notices
from moleport_server.registry.observer import SessionEnd, TunnelEnd
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.quotas import check_sessions
from moleport_server.registry.tunnels import Tunnels
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.hoody.frames import Code

_END_OF_TUNNELS = {SessionEnd.REVOKED: TunnelEnd.REVOKED, SessionEnd.GOODBYE: TunnelEnd.UNBOUND}
"""Why the tunnels of a session ended, by why it did; the others were deleted with it."""


class Sessions:
    """The live sessions of one server, and what becomes of them.

    Args:
        most: how many may be live at a time.
        bindings: the tunnels.
        tunnels: attaches, detaches and releases them.
        parked: those that may be resumed.
        leases: says how long an absent agent is waited for.
        durable: keeps them over a restart.
        notices: tells others.
        tasks: owns the ends that wait for streams.
        clock: for the deadlines of those.
    """

    def __init__(
        self,
        most: int,
        *,
        bindings: Bindings,
        tunnels: Tunnels,
        parked: ParkedSessions,
        leases: Leases,
        durable: DurableState,
        notices: Notices,
        tasks: TaskOwner,
        clock: Clock,
    ) -> None:
        self.live: dict[str, Session] = {}
        """By id."""
        self._most = most
        self._bindings = bindings
        self._tunnels = tunnels
        self._parked = parked
        self._leases = leases
        self._durable = durable
        self._notices = notices
        self._tasks = tasks
        self._clock = clock

    def is_live(self, session: Session) -> bool:
        """Whether this very session is registered: not superseded, not ended."""
        return self.live.get(session.id) is session

    def check_admission(self, principal: Principal) -> None:
        """Check that one more session may exist.

        Raises:
            QuotaExceeded: the server or the token is at its limit.
        """
        check_sessions(principal, self.live.values(), self._most)

    def open(self, session: Session) -> None:
        """Register a new session and remember it durably."""
        self.live[session.id] = session
        self._durable.save_session(session)
        self._notices.session_opened(session)

    def may_resume(self, session_id: str, principal: Principal) -> bool:
        """Whether this caller may resume that session, live or parked."""
        live = self.live.get(session_id)
        if live is not None:
            return live.principal.token_id == principal.token_id
        stored = self._parked.by_id.get(session_id)
        return stored is not None and stored.token_id == principal.token_id

    def resume(self, session: Session) -> list[Tunnel]:
        """Let `session` take the place of the session with its id; return the tunnels it has again."""
        old = self.live.get(session.id)
        if old is not None:
            self._tunnels.detach(old, may_hold=True, until=None)
            old.upstream.end(Code.NONE, "resumed on another connection")
            self._notices.observer.session_ended(SessionEnd.REPLACED)
        self.live[session.id] = session
        self._parked.take(session.id)
        self._durable.save_session(session)
        tunnels = self._waiting(session.id)
        until = self._leases.end_of_new()
        for tunnel in tunnels:
            self._tunnels.promise(tunnel, session, until)
        self._notices.session_resumed(session, len(tunnels))
        return tunnels

    def attach(self, session: Session, tunnels: Iterable[Tunnel]) -> None:
        """Make tunnels of a resumed session live; call it when the agent is ready for streams."""
        for tunnel in tunnels:
            if tunnel.promised_to is session and tunnel in self._bindings:
                self._tunnels.take_over(tunnel, session, tunnel.bind_id)
                self._durable.save_lease(tunnel)
                self._tunnels.welcome(session, tunnel)

    def lose(
        self, session: Session, reason: str, *, is_clean: bool, cause: SessionEnd | None
    ) -> None:
        """Park a session whose connection is gone."""
        if not self.is_live(session):
            return  # superseded or already ended
        del self.live[session.id]
        until = self._leases.end_of_new()
        waiting = self._waiting(session.id)
        had_tunnels = bool(session.tunnels or waiting)
        self._tunnels.detach(session, may_hold=not is_clean, until=until)
        for tunnel in waiting:
            self._tunnels.leave_waiting(tunnel, may_hold=not is_clean, until=until)
        if had_tunnels and not self._leases.is_closing:
            self._durable.park_leases(session.id, self._leases.wall_end_of_new())
        if had_tunnels and not is_clean:
            self._parked.add(session)
        else:
            self._durable.forget_session(session.id)
        self._leases.schedule()
        if cause is None:
            cause = SessionEnd.GOODBYE if is_clean else SessionEnd.LOST
        if is_clean or not had_tunnels:
            self._notices.session_closed(session, reason, cause)
        else:
            self._notices.session_parked(session, reason, cause)

    def close(
        self,
        session: Session,
        reason: str,
        *,
        drain_seconds: float,
        grace_seconds: float,
        cause: SessionEnd,
    ) -> None:
        """Begin to end a session for good: its tunnels are released, its agent is told why."""
        if drain_seconds > 0 and session.upstream.open_streams:
            session.upstream.drain(reason, drain_seconds)
            work = self._end_drained(session, reason, drain_seconds, cause)
            self._tasks.start(work, "drain a session")
        else:
            self.end(session, reason, cause, grace_seconds)

    async def _end_drained(
        self, session: Session, reason: str, drain_seconds: float, cause: SessionEnd
    ) -> None:
        deadline = self._clock.monotonic() + drain_seconds
        # Streams end one by one on the hot path, which must not pay for a waiter that is so rare.
        while session.upstream.open_streams and self._clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        current = self.live.get(session.id)
        if current is not None:
            self.end(current, reason, cause)  # on another connection by now, maybe
        else:
            self.release_parked(session.id, reason)

    def end(
        self, session: Session, reason: str, cause: SessionEnd, grace_seconds: float = 0.0
    ) -> None:
        """End a session for good, at once; its agent is told why."""
        if self.release(session, reason, cause):
            session.upstream.end(Code.PROTOCOL_ERROR, reason, grace_seconds)

    def release(self, session: Session, reason: str, cause: SessionEnd) -> bool:
        """Forget a session and release its tunnels; False if it was not live any more."""
        if not self.is_live(session):
            return False
        del self.live[session.id]
        of_tunnels = _END_OF_TUNNELS.get(cause, TunnelEnd.DELETED)
        for tunnel in (*session.tunnels.values(), *self._waiting(session.id)):
            self._tunnels.release(tunnel, reason, of_tunnels)
        self._parked.bury(session.id)
        self._notices.session_closed(session, reason, cause)
        return True

    def _waiting(self, session_id: str) -> list[Tunnel]:
        """Return the tunnels that no connection has and that lead to a session.

        It is parked, or it was resumed and they are not attached yet. A tunnel whose port is just being
        opened is none of them: its agent was not told about it, and its claim gives it up.
        """
        tunnels = self._bindings.of_session(session_id)
        return [t for t in tunnels if t.session is None and not t.is_opening]

    def release_parked(self, session_id: str, reason: str) -> bool:
        """Release everything of a session whose agent is away; False if there is none."""
        stored = self._parked.take(session_id)
        if stored is None:
            return False
        for tunnel in self._bindings.of_session(session_id):
            self._tunnels.release(tunnel, reason, TunnelEnd.DELETED)
        self._parked.bury(session_id)
        self._notices.parked_session_closed(session_id, stored.token_id, reason)
        return True

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell every agent to go elsewhere; nothing is ended yet."""
        for session in list(self.live.values()):
            session.upstream.drain(reason, deadline_seconds)

    def end_all(self, reason: str) -> None:
        """End every connection; the sessions and their leases wait in the store."""
        for session in list(self.live.values()):
            session.upstream.end(Code.NONE, reason)
            self._notices.observer.session_ended(SessionEnd.DRAINED)
        self.live.clear()
