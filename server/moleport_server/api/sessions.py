"""Live sessions of every protocol: list them, look at one, end one."""

from typing import Annotated

import msgspec

from moleport_server.api.ports import Registry
from moleport_server.api.routing import Call, NoQuery, Route
from moleport_server.api.shapes import SessionView
from moleport_server.api.timestamps import rfc3339
from moleport_server.domain.token import Principal
from moleport_server.errors import NotFoundError
from moleport_server.registry.live import Session


class DrainQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How gently to end."""

    drain_seconds: Annotated[
        float,
        msgspec.Meta(ge=0, le=3600, description="How long open requests may take to finish."),
    ] = 0


class SessionRoutes:
    """The sessions family; an extension."""

    def __init__(self, *, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        unknown = ((404, "session not found"),)
        return (
            Route(
                method="GET",
                path="/api/sessions",
                operation="listSessions",
                summary="List live sessions, oldest first",
                handler=self._list,
                family="sessions",
                answer=list[SessionView],
                is_extension=True,
            ),
            Route(
                method="GET",
                path="/api/sessions/{id}",
                operation="getSession",
                summary="Show one live session",
                handler=self._get,
                family="sessions",
                answer=SessionView,
                errors=unknown,
                is_extension=True,
            ),
            Route(
                method="DELETE",
                path="/api/sessions/{id}",
                operation="closeSession",
                summary="Begin to end a session; the answer shows it as it is now",
                handler=self._close,
                family="sessions",
                query=DrainQuery,
                status=202,
                answer=SessionView,
                errors=unknown,
                is_extension=True,
            ),
        )

    async def _list(self, call: Call[NoQuery, None]) -> list[SessionView]:
        principal = call.principal
        sessions = [
            session
            for session in self._registry.sessions.values()
            if principal.owns(session.principal.token_id)
        ]
        sessions.sort(key=lambda session: session.connected_at)
        return [_view(session) for session in sessions]

    async def _get(self, call: Call[NoQuery, None]) -> SessionView:
        return _view(self._find(call.principal, call.path["id"]))

    async def _close(self, call: Call[DrainQuery, None]) -> SessionView:
        session = self._find(call.principal, call.path["id"])
        view = _view(session)
        await self._registry.close_session(
            session, "closed through the API", drain_seconds=call.query.drain_seconds
        )
        return view

    def _find(self, principal: Principal, session_id: str) -> Session:
        session = self._registry.sessions.get(session_id)
        if session is None or not principal.owns(session.principal.token_id):
            raise NotFoundError("session not found")
        return session


def _view(session: Session) -> SessionView:
    return SessionView(
        session_id=session.id,
        protocol=session.protocol,
        peer=session.peer,
        agent=session.agent,
        token_id=session.principal.token_id,
        token_label=session.principal.label,
        connected_at=rfc3339(session.connected_at),
        connections=session.connections,
        open_streams=session.upstream.open_streams,
        tunnel_ids=[str(tunnel.id) for tunnel in session.tunnels.values()],
    )
