"""The durable side: what of the live state survives a restart, and when it is written.

Each change of the live state has its write here, put into words of the store and into the journal's
order. With a store that several servers share, this is the module that changes: its writes then settle
who has a name.
"""

from __future__ import annotations

from uuid import uuid4

from moleport_server.registry.journal import Journal
from moleport_server.registry.lease_records import to_lease, to_stored_session
from moleport_server.registry.live import Session, Tunnel
from moleport_server.store.base import StateStore, TunnelLogEntry


class DurableState:
    """Sessions, leases and the history of tunnels, written through the journal."""

    def __init__(self, store: StateStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    def save_session(self, session: Session) -> None:
        """Remember a session, new or resumed."""
        stored = to_stored_session(session)
        self._journal.post("save session", lambda: self._store.save_session(stored))

    def forget_session(self, session_id: str) -> None:
        """Forget a session that nobody can resume any more."""
        self._journal.post("forget session", lambda: self._store.delete_session(session_id))

    async def write_lease(self, tunnel: Tunnel) -> None:
        """Keep a tunnel, and return when that is written or has failed (and was logged)."""
        lease = to_lease(tunnel)
        await self._journal.write("save lease", lambda: self._store.save_lease(lease))

    def save_lease(self, tunnel: Tunnel) -> None:
        """Keep a tunnel that is another session's or another bind now."""
        lease = to_lease(tunnel)
        self._journal.post("save lease", lambda: self._store.save_lease(lease))

    def park_leases(self, session_id: str, until: float) -> None:
        """Let the leases of a session end at a time, in Unix seconds."""
        self._journal.post("park leases", lambda: self._store.park_leases(session_id, until))

    def add_history(self, tunnel: Tunnel) -> None:
        """Begin a row of the history for a new tunnel."""
        entry = TunnelLogEntry(
            id=str(uuid4()),
            tunnel_id=str(tunnel.id),
            protocol=tunnel.protocol.value,
            label=tunnel.label,
            session_id=tunnel.session_id,
            token_id=tunnel.token_id,
            token_label=tunnel.token_label,
            registered_at=tunnel.opened_at,
        )
        self._journal.post("add history", lambda: self._store.add_log_entry(entry))

    def forget_tunnel(self, tunnel: Tunnel, at: float) -> None:
        """Give up the lease of a tunnel that was released, and end its row of the history."""
        tunnel_id = str(tunnel.id)
        self._journal.post("delete lease", lambda: self._store.delete_leases([tunnel_id]))
        self._journal.post("close history", lambda: self._store.close_log_entries([tunnel_id], at))
