"""The REST family of hoody-tunnel servers: sessions of every protocol in the words of its SDK.

A view over the same live objects as the other families. Its words for a binding are `EXPOSE` with
`http` and `PULL` with `tcp`, other ones than in frames; tunnels of other agents read as EXPOSE, with
their public port if they have one. A parked session is an orphan: counted and killable, not listed.

Whoever shows a token sees what it owns. SDKs of this family are often used behind a gateway that checks
its callers and sends no token on, so a range of source addresses may be trusted instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from moleport_server.api.ports import HoodyFacts, Registry
from moleport_server.api.routing import Access, Call, NoQuery, Route
from moleport_server.api.shapes import Count, Port, Timestamp
from moleport_server.api.timestamps import rfc3339
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import ContainerMode, TunnelProtocol
from moleport_server.errors import NotFoundError
from moleport_server.registry.live import Session, Tunnel

PREFIX: Final = "/api/v1/tunnel"
KILL_REASON: Final = "closed by admin"
BAD_GRACE: Final = "Invalid grace_ms: must be between 0 and 5000"
_PLAIN: Final = "text/plain"
_STOCK: Final = re.compile(r"hoody-tunnel\.v[12]")

Kind = Literal["EXPOSE", "PULL"]
Mode = Literal["http", "tcp"]


class MemoryView(Struct, frozen=True, kw_only=True):
    """Memory of the process in bytes."""

    heap: Count
    rss: Count


class HealthView(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the process is."""

    status: Literal["ok"]
    service: str
    built: Timestamp | None
    started: Timestamp
    memory: MemoryView | None
    fds: Count | None
    pid: Count
    ip: Annotated[str, Meta(description="The address on which this call arrived.")]
    user_agent: Annotated[str, Meta(description="What the caller says it is.")]


class BindingInfo(Struct, frozen=True, kw_only=True, rename="camel"):
    """One binding of a listed session."""

    bind_id: Count
    container_port: Port
    kind: Kind
    mode: Mode


class SessionInfo(Struct, frozen=True, kw_only=True, rename="camel"):
    """One live session."""

    session_id: str
    peer_addr: str
    is_v2: Annotated[bool, Meta(description="Whether it speaks hoody-tunnel.v2.")] = msgspec.field(
        name="isV2"
    )
    connections_granted: Count
    active_streams: Count
    max_streams: Count
    bindings: list[BindingInfo]


class SessionsView(Struct, frozen=True, kw_only=True):
    """All live sessions."""

    sessions: list[SessionInfo]
    total: Count


class BindingDetail(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One binding and whose it is."""

    bind_id: Count
    kind: Kind
    mode: Mode
    port: Port
    session_id: str
    bind_addr: Annotated[
        str | None, Meta(description="Where a PULL listens; absent otherwise.")
    ] = None


class BindingsView(Struct, frozen=True, kw_only=True):
    """All bindings of live sessions."""

    bindings: list[BindingDetail]
    total: Count


class TunnelBindingView(Struct, frozen=True, kw_only=True, rename="camel"):
    """One binding in the overview."""

    bind_id: Count
    container_port: Port


class TunnelSessionView(Struct, frozen=True, kw_only=True, rename="camel"):
    """One session in the overview."""

    session_id: str
    peer_addr: str
    protocol: Annotated[
        str, Meta(description="`hoody-tunnel.v1`, `hoody-tunnel.v2`, `moleport` or `rustunnel`.")
    ]
    connections_granted: Count
    active_streams: Count
    expose_bindings: list[TunnelBindingView]
    pull_bindings: list[TunnelBindingView]


class OverviewView(Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything at a glance."""

    fd_permits_available: Annotated[
        int, Meta(ge=0, description="Connections that may still be accepted.")
    ]
    orphaned_sessions: Annotated[
        int, Meta(ge=0, description="Sessions that lost their connection and may come back.")
    ]
    total_bindings: Count
    total_streams: Count
    sessions: list[TunnelSessionView]


class ClosingView(Struct, frozen=True, kw_only=True, rename="camel"):
    """A session that is being ended."""

    session_id: str
    status: Literal["closing"]


class GraceQuery(Struct, frozen=True, kw_only=True):
    """How long the goodbye may take."""

    grace_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=5000,
            description="Milliseconds that the client has to close its connections itself, once told.",
        ),
    ] = 50


class HoodyRoutes:
    """The family below `/api/v1/tunnel`."""

    def __init__(self, *, registry: Registry, facts: HoodyFacts) -> None:
        self._registry = registry
        self._facts = facts

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path=f"{PREFIX}/health",
                operation="checkTunnelHealth",
                summary="Tell that the process is up, and what it uses",
                handler=self._health,
                family="hoody",
                access=Access.PUBLIC,
                answer=HealthView,
            ),
            Route(
                method="GET",
                path=f"{PREFIX}/metrics",
                operation="getTunnelMetrics",
                summary="Count sessions, bindings and free descriptors, for Prometheus",
                handler=self._metrics,
                family="hoody",
                access=Access.PUBLIC,
                media_type=_PLAIN,
            ),
            Route(
                method="GET",
                path=f"{PREFIX}/sessions",
                operation="listTunnelSessions",
                summary="List live sessions with their bindings",
                handler=self._sessions,
                family="hoody",
                access=Access.GATEWAY,
                answer=SessionsView,
            ),
            Route(
                method="GET",
                path=f"{PREFIX}/bindings",
                operation="listTunnelBindings",
                summary="List the bindings of all live sessions",
                handler=self._bindings,
                family="hoody",
                access=Access.GATEWAY,
                answer=BindingsView,
            ),
            Route(
                method="GET",
                path=f"{PREFIX}/tunnels",
                operation="getTunnelOverview",
                summary="Show sessions, bindings, orphans and free descriptors at a glance",
                handler=self._overview,
                family="hoody",
                access=Access.GATEWAY,
                answer=OverviewView,
            ),
            Route(
                method="DELETE",
                path=f"{PREFIX}/sessions/{{session_id}}",
                operation="killTunnelSession",
                summary="End a session for good: it cannot be resumed",
                handler=self._kill,
                family="hoody",
                access=Access.GATEWAY,
                query=GraceQuery,
                query_error=BAD_GRACE,
                status=202,
                answer=ClosingView,
                errors=((404, "Session not found"),),
            ),
        )

    async def _health(self, call: Call[NoQuery, None]) -> HealthView:
        facts, request = self._facts, call.request
        vitals = facts.vitals()
        transport = request.transport
        bound = None if transport is None else transport.get_extra_info("sockname")
        return HealthView(
            status="ok",
            service="hoody-tunnel",
            built=None,
            started=rfc3339(facts.started_at),
            memory=MemoryView(heap=vitals.heap_bytes, rss=vitals.resident_bytes),
            fds=vitals.descriptors,
            pid=vitals.pid,
            ip=str(bound[0]) if bound else "",
            user_agent=request.headers.get("User-Agent", ""),
        )

    async def _metrics(self, _call: Call[NoQuery, None]) -> web.Response:
        sessions = self._registry.sessions.values()
        rows = (
            ("sessions_active", "Number of active tunnel sessions", len(sessions)),
            ("bindings_active", "Number of active bindings", sum(len(s.tunnels) for s in sessions)),
            (
                "fd_permits_available",
                "Available file descriptor permits",
                self._facts.free_descriptors(),
            ),
        )
        text = "".join(
            f"# HELP hoody_tunnel_{name} {meaning}\n# TYPE hoody_tunnel_{name} gauge\n"
            f"hoody_tunnel_{name} {count}\n"
            for name, meaning, count in rows
        )
        return web.Response(text=text, content_type=_PLAIN)

    async def _sessions(self, call: Call[NoQuery, None]) -> SessionsView:
        rows = [
            SessionInfo(
                session_id=session.id,
                peer_addr=session.peer,
                is_v2=session.protocol == "hoody-tunnel.v2",
                connections_granted=session.granted,
                active_streams=session.upstream.open_streams,
                max_streams=self._most_streams(session),
                bindings=[
                    BindingInfo(
                        bind_id=tunnel.bind_id,
                        container_port=_port(tunnel),
                        kind=_kind(tunnel),
                        mode=_mode(tunnel),
                    )
                    for tunnel in session.tunnels.values()
                ],
            )
            for session in self._visible(call.principal)
        ]
        return SessionsView(sessions=rows, total=len(rows))

    async def _bindings(self, call: Call[NoQuery, None]) -> BindingsView:
        rows = [
            BindingDetail(
                bind_id=tunnel.bind_id,
                kind=_kind(tunnel),
                mode=_mode(tunnel),
                port=_port(tunnel),
                session_id=session.id,
                bind_addr=tunnel.container.host
                if tunnel.container is not None and _kind(tunnel) == "PULL"
                else None,
            )
            for session in self._visible(call.principal)
            for tunnel in session.tunnels.values()
        ]
        return BindingsView(bindings=rows, total=len(rows))

    async def _overview(self, call: Call[NoQuery, None]) -> OverviewView:
        sessions = list(self._visible(call.principal))
        parked = self._registry.parked.values()
        return OverviewView(
            fd_permits_available=self._facts.free_descriptors(),
            orphaned_sessions=sum(call.principal.owns(row.token_id) for row in parked),
            total_bindings=sum(len(session.tunnels) for session in sessions),
            total_streams=sum(session.upstream.open_streams for session in sessions),
            sessions=[
                TunnelSessionView(
                    session_id=session.id,
                    peer_addr=session.peer,
                    protocol=session.protocol,
                    connections_granted=session.granted,
                    active_streams=session.upstream.open_streams,
                    expose_bindings=_of_kind(session, "EXPOSE"),
                    pull_bindings=_of_kind(session, "PULL"),
                )
                for session in sessions
            ],
        )

    async def _kill(self, call: Call[GraceQuery, None]) -> ClosingView:
        session_id, principal = call.path["session_id"], call.principal
        registry = self._registry
        session, parked = registry.sessions.get(session_id), registry.parked.get(session_id)
        if session is not None and principal.owns(session.principal.token_id):
            grace_seconds = call.query.grace_ms / 1000
            await registry.close_session(session, KILL_REASON, grace_seconds=grace_seconds)
        elif parked is not None and principal.owns(parked.token_id):
            registry.release_parked(session_id, KILL_REASON)
        else:
            raise NotFoundError("Session not found")
        return ClosingView(session_id=session_id, status="closing")

    def _visible(self, principal: Principal) -> Iterator[Session]:
        sessions = self._registry.sessions.values()
        yield from sorted(
            (s for s in sessions if principal.owns(s.principal.token_id)),
            key=lambda session: session.connected_at,
        )

    def _most_streams(self, session: Session) -> int:
        facts = self._facts
        is_stock = _STOCK.fullmatch(session.protocol) is not None
        return facts.stock_streams if is_stock else facts.session_streams


def _kind(tunnel: Tunnel) -> Kind:
    container = tunnel.container
    return "PULL" if container is not None and container.mode is ContainerMode.PULL else "EXPOSE"


def _mode(tunnel: Tunnel) -> Mode:
    return "http" if tunnel.protocol is TunnelProtocol.HTTP else "tcp"


def _port(tunnel: Tunnel) -> int:
    return (tunnel.port or 0) if tunnel.container is None else tunnel.container.port


def _of_kind(session: Session, kind: Kind) -> list[TunnelBindingView]:
    return [
        TunnelBindingView(bind_id=tunnel.bind_id, container_port=_port(tunnel))
        for tunnel in session.tunnels.values()
        if _kind(tunnel) == kind
    ]
