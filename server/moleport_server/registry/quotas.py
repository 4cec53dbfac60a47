"""Quotas: how many sessions and tunnels may exist. Decides from what it is given and changes nothing."""

from collections.abc import Collection

from moleport_server.domain.token import Principal
from moleport_server.errors import QuotaExceeded
from moleport_server.registry.live import Session, Tunnel


def check_sessions(principal: Principal, sessions: Collection[Session], most: int) -> None:
    """Check that one more session may exist.

    Args:
        principal: of the new one.
        sessions: those that are live.
        most: how many the server admits.

    Raises:
        QuotaExceeded: the server or the token is at its limit.
    """
    if len(sessions) >= most:
        raise QuotaExceeded("tunnel session limit reached")
    limit = principal.effective.limits.max_agents
    if limit is not None:
        count = sum(1 for s in sessions if s.principal.token_id == principal.token_id)
        if count >= limit:
            raise QuotaExceeded(too_many_agents(principal))


def check_tunnels(
    session: Session, tunnels: Collection[Tunnel], own: Tunnel | None, most: int
) -> None:
    """Check that a session may have one more tunnel.

    A tunnel whose listener is being opened has no session yet, but it is not leased: it counts, so that
    claims at the same time do not get past a limit together. One that would be taken over does not: an
    agent that was restarted must get its name back from its dead twin. One of the session itself is none of
    those.

    Args:
        session: who asks.
        tunnels: all of the server.
        own: the one that has the address now that is asked for.
        most: how many the server admits per session.

    Raises:
        QuotaExceeded: the session or the token is at its limit.
    """
    live = [t for t in tunnels if t.lease_until is None and (t is not own or t.session is session)]
    count = sum(1 for t in live if t.session_id == session.id)
    if count >= most:
        raise QuotaExceeded(
            f"limit exceeded: session {session.id} already has {count} tunnels (max {most})"
        )
    principal = session.principal
    limit = principal.effective.limits.max_tunnels
    if limit is not None:
        count = sum(1 for t in live if t.token_id == principal.token_id)
        if count >= limit:
            raise QuotaExceeded(too_many_tunnels(principal))


def surplus_sessions(principal: Principal, sessions: Collection[Session]) -> list[Session]:
    """Return the sessions of a token that are too many for its limit: the newest."""
    limit = principal.effective.limits.max_agents
    own = [s for s in sessions if s.principal.token_id == principal.token_id]
    own.sort(key=lambda session: session.connected_at)
    return [] if limit is None else own[limit:]


def surplus_tunnels(principal: Principal, tunnels: Collection[Tunnel]) -> list[Tunnel]:
    """Return the live ones of a token's tunnels that are too many for its limit: the newest."""
    limit = principal.effective.limits.max_tunnels
    live = [t for t in tunnels if t.lease_until is None]
    live.sort(key=lambda tunnel: tunnel.opened_at)
    return [] if limit is None else live[limit:]


def too_many_agents(principal: Principal) -> str:
    """Return the text for a token that has as many agents as it may."""
    most = principal.effective.limits.max_agents
    return f"token '{principal.label}' may have {most} agents at a time"


def too_many_tunnels(principal: Principal) -> str:
    """Return the text for a token that has as many tunnels as it may."""
    most = principal.effective.limits.max_tunnels
    return f"token '{principal.label}' may have {most} tunnels at a time"
