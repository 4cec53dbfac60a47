"""Renewal: what a token may do now holds for the sessions and tunnels that it has.

Each step ends what is not allowed any more, tells the agent why, and lets the rest go by the new rules.
`enforcement` says when.
"""

from __future__ import annotations

from collections.abc import Collection

from moleport_server.access.authorization import authorize_agent, check_tunnel
from moleport_server.domain.token import Principal
from moleport_server.errors import Forbidden
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.governance import Governance
from moleport_server.registry.live import Session
from moleport_server.registry.observer import SessionEnd, TunnelEnd
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.quotas import (
    surplus_sessions,
    surplus_tunnels,
    too_many_agents,
    too_many_tunnels,
)
from moleport_server.registry.sessions import Sessions
from moleport_server.registry.tunnels import Tunnels


class Renewal:
    """Carries out changes of tokens and policies."""

    def __init__(
        self,
        domains: Collection[str],
        *,
        bindings: Bindings,
        sessions: Sessions,
        parked: ParkedSessions,
        tunnels: Tunnels,
        governance: Governance,
    ) -> None:
        self._domains = domains
        self._bindings = bindings
        self._sessions = sessions
        self._parked = parked
        self._tunnels = tunnels
        self._governance = governance

    def renew_session(self, session: Session, principal: Principal) -> None:
        """Let one session go by what its token may do now; it ends if its agent may not be there."""
        session.principal = principal
        try:
            authorize_agent(principal, session.peer_host)
        except Forbidden as error:
            self._sessions.end(session, str(error), SessionEnd.REVOKED)

    def renew_token(self, principal: Principal) -> None:
        """Let all sessions and tunnels of a token, live and leased, go by what it may do now."""
        for session in surplus_sessions(principal, self._sessions.live.values()):
            self._sessions.end(session, too_many_agents(principal), SessionEnd.REVOKED)
        tunnels = self._bindings.of_token(principal.token_id)
        for tunnel in tunnels:
            try:
                check_tunnel(principal, tunnel, self._domains)
            except Forbidden as error:
                self._tunnels.withdraw(tunnel, str(error), TunnelEnd.REVOKED)
        left = self._bindings.of_token(principal.token_id)
        for tunnel in surplus_tunnels(principal, left):
            self._tunnels.withdraw(tunnel, too_many_tunnels(principal), TunnelEnd.REVOKED)
        for tunnel in self._bindings.of_token(principal.token_id):
            self._governance.govern(tunnel, principal.effective)

    def close_token(self, token_id: str, reason: str) -> None:
        """End everything of a token: sessions, leases, resumable sessions."""
        for session in list(self._sessions.live.values()):
            if session.principal.token_id == token_id:
                self._sessions.end(session, reason, SessionEnd.REVOKED)
        for tunnel in self._bindings.of_token(token_id):
            self._tunnels.release(tunnel, reason, TunnelEnd.REVOKED)
        self._parked.drop_token(token_id)
