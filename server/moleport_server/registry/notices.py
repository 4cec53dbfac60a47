"""Notices: what the registry tells others, and in which words.

Each thing that happens is told once and at once: to the log, to those who watch events, to whoever
counts, and to the edge and the captures, which have to act on it (the callbacks, set by the application
when it puts the pieces together). Nothing here decides or changes anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from moleport_server.registry.events import EventLog
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import (
    ClaimResult,
    RegistryObserver,
    SessionEnd,
    TunnelEnd,
    Unobserved,
)

logger = logging.getLogger(__name__)


class Notices:
    """Who is told, and the telling.

    Args:
        now: the wall clock, for events.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.events = EventLog(now)
        """What happened, for those who watch."""
        self.observer: RegistryObserver = Unobserved()
        """Counts what begins and ends."""
        self.on_agent_returned: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel has a session again, before its hold ends."""
        self.on_agent_left: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel loses its session, or when that is short of streams; the edge forgets
        the idle ones."""
        self.on_tunnel_closed: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel was released for good."""
        self.on_rules_changed: Callable[[Tunnel], None] = lambda _: None
        """Called when other visitor rules or limits hold for a tunnel; the edge looks at what is
        open."""

    def session_opened(self, session: Session) -> None:
        """Tell about a session that began."""
        logger.info(
            "session opened",
            extra={"session": session.id, "peer": session.peer, "protocol": session.protocol},
        )
        self._publish("session.opened", session)
        self.observer.session_opened(is_resumed=False)

    def session_resumed(self, session: Session, tunnel_count: int) -> None:
        """Tell about a session that came back."""
        logger.info(
            "session resumed",
            extra={"session": session.id, "peer": session.peer, "tunnels": tunnel_count},
        )
        self._publish("session.resumed", session)
        self.observer.session_opened(is_resumed=True)

    def session_parked(self, session: Session, reason: str, cause: SessionEnd) -> None:
        """Tell about a session that lost its connection and may come back."""
        logger.info("session parked", extra={"session": session.id, "reason": reason})
        self._publish("session.parked", session, reason)
        self.observer.session_ended(cause)

    def session_closed(self, session: Session, reason: str, cause: SessionEnd) -> None:
        """Tell about a live session that ended."""
        logger.info("session closed", extra={"session": session.id, "reason": reason})
        self._publish("session.closed", session, reason)
        self.observer.session_ended(cause)

    def parked_session_closed(self, session_id: str, token_id: str | None, reason: str) -> None:
        """Tell about a session that was closed while its agent was away; its end was counted then."""
        logger.info("session closed", extra={"session": session_id, "reason": reason})
        self.events.publish(
            "session.closed", token_id, {"session_id": session_id, "reason": reason}
        )

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """Tell about a new tunnel."""
        tunnel_id = str(tunnel.id)
        logger.info(
            "tunnel opened",
            extra={"tunnel": tunnel_id, "session": tunnel.session_id, "url": tunnel.public_url},
        )
        self.events.publish(
            "tunnel.opened",
            tunnel.token_id,
            {
                "tunnel_id": tunnel_id,
                "protocol": tunnel.protocol.value,
                "label": tunnel.label,
                "public_url": tunnel.public_url,
                "session_id": tunnel.session_id,
            },
        )
        self.observer.tunnel_claimed(tunnel.protocol, ClaimResult.OPENED)

    def tunnel_closed(self, tunnel: Tunnel, reason: str, cause: TunnelEnd, at: float) -> None:
        """Tell about a tunnel that was released for good."""
        self.on_tunnel_closed(tunnel)
        tunnel_id = str(tunnel.id)
        logger.info("tunnel closed", extra={"tunnel": tunnel_id, "reason": reason})
        self.events.publish(
            "tunnel.closed",
            tunnel.token_id,
            {"tunnel_id": tunnel_id, "label": tunnel.label, "reason": reason},
        )
        self.observer.tunnel_ended(tunnel.protocol, cause, max(0.0, at - tunnel.opened_at))

    def _publish(self, kind: str, session: Session, reason: str | None = None) -> None:
        fields: dict[str, object] = {
            "session_id": session.id,
            "protocol": session.protocol,
            "peer": session.peer,
        }
        if reason is not None:
            fields["reason"] = reason
        self.events.publish(kind, session.principal.token_id, fields)
