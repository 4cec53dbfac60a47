"""The history: every tunnel that was registered, open or closed."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from moleport_server.api.ports import StateReader
from moleport_server.api.routing import Call, Route
from moleport_server.api.shapes import HistoryEntryView, HistoryView
from moleport_server.api.timestamps import rfc3339, rfc3339_or_none
from moleport_server.clock import Clock
from moleport_server.store.base import HistoryQuery, TunnelLogEntry

MOST_ENTRIES: Final = 10_000
"""Rows of one page; a few MiB of JSON."""
_FARTHEST_OFFSET: Final = (1 << 63) - 1
"""What databases count with."""


class HistoryParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, in which order, which page."""

    limit: Annotated[
        int, Meta(ge=0, description=f"Rows at most; {MOST_ENTRIES} are never exceeded.")
    ] = 50
    offset: Annotated[int, Meta(ge=0, description="Rows to skip.")] = 0
    protocol: Annotated[str, Meta(description="`http` or `tcp`.")] | UnsetType = UNSET
    token_id: Annotated[str, Meta(description="Rows of one token.")] | UnsetType = UNSET
    active: (
        Annotated[
            Literal["true", "false"],
            Meta(description="`true`: tunnels that are open; `false`: those that were closed."),
        ]
        | UnsetType
    ) = UNSET
    sort_by: Annotated[
        str, Meta(description="`started`, `duration` or `protocol`; anything else is `started`.")
    ] = "started"
    sort_dir: Annotated[str, Meta(description="`asc`; anything else is descending.")] = "desc"


class HistoryRoutes:
    """The history family."""

    def __init__(self, *, store: StateReader, clock: Clock, region_id: str) -> None:
        self._store = store
        self._clock = clock
        self._region_id = region_id

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/history",
                operation="getTunnelHistory",
                summary="List tunnels, open and closed, newest first",
                handler=self._list,
                family="history",
                query=HistoryParameters,
                answer=HistoryView,
            ),
        )

    async def _list(self, call: Call[HistoryParameters, None]) -> HistoryView:
        asked, principal = call.query, call.principal
        token_id = None if asked.token_id is UNSET else asked.token_id
        if principal.token_id is not None:
            if token_id not in {None, principal.token_id}:
                return HistoryView(entries=[], total=0)
            token_id = principal.token_id
        query = HistoryQuery(
            limit=min(asked.limit, MOST_ENTRIES),
            offset=min(asked.offset, _FARTHEST_OFFSET),
            protocol=None if asked.protocol is UNSET else asked.protocol,
            token_id=token_id,
            active=None if asked.active is UNSET else asked.active == "true",
            sort_by=asked.sort_by,
            ascending=asked.sort_dir == "asc",
            now=self._clock.now(),
        )
        entries, total = await self._store.query_history(query)
        return HistoryView(entries=[self._view(entry) for entry in entries], total=total)

    def _view(self, entry: TunnelLogEntry) -> HistoryEntryView:
        return HistoryEntryView(
            id=entry.id,
            tunnel_id=entry.tunnel_id,
            protocol=entry.protocol,
            label=entry.label,
            session_id=entry.session_id,
            token_id=entry.token_id,
            token_label=entry.token_label,
            registered_at=rfc3339(entry.registered_at),
            unregistered_at=rfc3339_or_none(entry.unregistered_at),
            region_id=self._region_id,
        )
