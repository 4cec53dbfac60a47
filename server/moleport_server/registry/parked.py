"""Parked sessions: their connection is lost, and their agent may come back for their tunnels."""

from __future__ import annotations

from moleport_server.registry.durable import DurableState
from moleport_server.registry.lease_records import to_stored_session
from moleport_server.registry.live import Session
from moleport_server.registry.tombstones import Tombstones
from moleport_server.store.base import StoredSession


class ParkedSessions:
    """Who may resume what.

    Args:
        durable: keeps sessions over a restart.
        tombstones: remembers those that ended for good.
    """

    def __init__(self, durable: DurableState, tombstones: Tombstones) -> None:
        self._durable = durable
        self._tombstones = tombstones
        self.by_id: dict[str, StoredSession] = {}
        """Those that may be resumed."""

    def add(self, session: Session) -> None:
        """Park a session that is live no more."""
        self.by_id[session.id] = to_stored_session(session)

    def restore(self, stored: StoredSession) -> None:
        """Park a session of the last run."""
        self.by_id[stored.id] = stored

    def take(self, session_id: str) -> StoredSession | None:
        """Take a session out, because it is resumed or released; None if it is not parked."""
        return self.by_id.pop(session_id, None)

    def bury(self, session_id: str) -> None:
        """Forget a session for good, parked or not: its agent is told to stop asking."""
        self.by_id.pop(session_id, None)
        self._tombstones.add(session_id)
        self._durable.forget_session(session_id)

    def drop_token(self, token_id: str) -> None:
        """Let nobody resume the sessions of a token; its end takes their rows along."""
        for stored in [s for s in self.by_id.values() if s.token_id == token_id]:
            del self.by_id[stored.id]
