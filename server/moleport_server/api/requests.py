"""Captured requests: list them, look at one, send one again.

Memory answers first and the store behind it, so that a tunnel whose agent is back after a restart
shows both. Everything is masked on the way out. Sending again needs the original with its secrets,
which only memory has.
"""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from moleport_server.api.ports import Registry
from moleport_server.api.problems import OriginalGone
from moleport_server.api.routing import Call, Route
from moleport_server.api.shapes import CaptureView
from moleport_server.api.timestamps import rfc3339
from moleport_server.api.tunnels import find_tunnel
from moleport_server.capture.masking import mask_target
from moleport_server.capture.record import Capture
from moleport_server.capture.replay import ReplayPort
from moleport_server.capture.ring import CaptureLog, Recorded
from moleport_server.capture.writer import body_text
from moleport_server.domain.token import Principal
from moleport_server.errors import NotFoundError
from moleport_server.store.base import CaptureRow, CaptureStore

MOST_REQUESTS: Final = 500
"""Rows of one answer, as many as memory keeps per tunnel; with bodies more would be too much."""
_REPLAY_SECONDS: Final = 120.0
"""A local service may think for a while, the caller's connection does not last for ever."""


class RequestsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How many to list."""

    limit: Annotated[
        int, msgspec.Meta(ge=0, description=f"Rows at most; {MOST_REQUESTS} are never exceeded.")
    ] = 50


class ReplayQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with the stored request."""

    send: Annotated[
        Literal["true", "false"],
        msgspec.Meta(description="Send it to the local service and return the new capture."),
    ] = "false"


class RequestRoutes:
    """The captured requests of tunnels."""

    def __init__(
        self,
        *,
        registry: Registry,
        captures: CaptureLog,
        store: CaptureStore,
        replay: ReplayPort,
    ) -> None:
        self._registry = registry
        self._captures = captures
        self._store = store
        self._replay = replay

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/tunnels/{id}/requests",
                operation="tunnelRequests",
                summary="List the last captured requests of a tunnel, newest first",
                handler=self._list,
                family="requests",
                query=RequestsQuery,
                answer=list[CaptureView],
            ),
            Route(
                method="POST",
                path="/api/tunnels/{id}/replay/{request_id}",
                operation="replayRequest",
                summary="Show a captured request, or send it again",
                handler=self._show_or_send,
                family="requests",
                query=ReplayQuery,
                answer=CaptureView,
                errors=(
                    (404, "request not found"),
                    (404, "request does not belong to this tunnel"),
                    (404, "tunnel not found"),
                    (409, "the original request is gone …"),
                    (502, "the local service refused, or broke off"),
                    (503, "the agent is away"),
                ),
                deadline_seconds=_REPLAY_SECONDS,
            ),
        )

    async def _list(self, call: Call[RequestsQuery, None]) -> list[CaptureView]:
        principal, text = call.principal, call.path["id"]
        limit = min(call.query.limit, MOST_REQUESTS)
        views: list[CaptureView] = []
        try:
            recorded = self._captures.list(UUID(text), limit) if str(UUID(text)) == text else []
        except ValueError:
            return views
        views += [self._view(record) for record in recorded if principal.owns(record.token_id)]
        if len(views) < limit:
            known = {view.id for view in views}
            rows = await self._store.list_captures(text, limit=limit)
            stored = [row for row in rows if principal.owns(row.token_id) and row.id not in known]
            views += [_stored_view(row) for row in stored]
        return views[:limit]

    async def _show_or_send(self, call: Call[ReplayQuery, None]) -> CaptureView:
        principal = call.principal
        tunnel_id, request_id = call.path["id"], call.path["request_id"]
        is_sending = call.query.send == "true"
        record = self._captures.get(request_id)
        if record is None:
            row = await self._store.get_capture(request_id)
            if row is None:
                raise NotFoundError("request not found")
            _check_is_visible(row, principal, tunnel_id)
            if is_sending:
                raise OriginalGone("the original request is gone; only a masked copy is left")
            return _stored_view(row)
        _check_is_visible(record, principal, tunnel_id)
        if not is_sending:
            return self._view(record)
        tunnel = find_tunnel(self._registry, principal, tunnel_id)
        if tunnel is None:
            raise NotFoundError("tunnel not found")
        _check_is_whole(record.capture)
        capture = await self._replay.send(tunnel, record.capture)
        return self._view(Recorded(tunnel.id, tunnel.token_id, capture))

    def _view(self, record: Recorded) -> CaptureView:
        capture, ids = record.capture, self._captures.ids
        return CaptureView(
            id=ids.requests.format(capture.sequence),
            tunnel_id=str(record.tunnel_id),
            conn_id=ids.connections.format(capture.connection_id),
            method=capture.method.decode("latin-1"),
            path=mask_target(capture.target),
            status=capture.status,
            request_bytes=capture.request_bytes,
            response_bytes=capture.response_bytes,
            duration_ms=round(capture.duration_seconds * 1000),
            captured_at=rfc3339(capture.captured_at),
            request_body=body_text(capture.request_body),
            response_body=body_text(capture.response_body),
        )


def _stored_view(row: CaptureRow) -> CaptureView:
    return CaptureView(
        id=row.id,
        tunnel_id=row.tunnel_id,
        conn_id=row.connection_id,
        method=row.method,
        path=row.path,
        status=row.status,
        request_bytes=row.request_bytes,
        response_bytes=row.response_bytes,
        duration_ms=row.duration_ms,
        captured_at=rfc3339(row.captured_at),
        request_body=row.request_body,
        response_body=row.response_body,
    )


def _check_is_visible(found: Recorded | CaptureRow, principal: Principal, tunnel_id: str) -> None:
    if not principal.owns(found.token_id):
        raise NotFoundError("request not found")
    if str(found.tunnel_id) != tunnel_id:
        raise NotFoundError("request does not belong to this tunnel")


def _check_is_whole(capture: Capture) -> None:
    if capture.request_truncated:
        raise OriginalGone("the original request is gone; its body was too long to keep")
    if capture.request_bytes and capture.request_body is None:
        raise OriginalGone("the original request is gone; its body was given up to save memory")
