"""Tunnels: list them, look at one, close one.

A tunnel whose agent is away keeps its address for the time of the lease. It is not active, so lists
leave it out unless asked; by its id it can be seen and closed.
"""

import re
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from moleport_server.api.ports import Registry
from moleport_server.api.routing import Call, NoQuery, Route
from moleport_server.api.shapes import TunnelView
from moleport_server.api.timestamps import rfc3339_whole
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import NotFoundError
from moleport_server.registry.live import Tunnel

_UUID: Final = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE | re.ASCII
)


class TunnelsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to list."""

    leased: Annotated[
        Literal["true", "false"],
        msgspec.Meta(description="Whether to list tunnels whose agent is away as well."),
    ] = "false"


def find_tunnel(registry: Registry, principal: Principal, text: str) -> Tunnel | None:
    """Return the tunnel with this id (lower-case UUID text) if the caller may know of it."""
    tunnel_id = UUID(text) if _UUID.fullmatch(text) else None
    if tunnel_id is None or str(tunnel_id) != text:
        return None
    tunnel = registry.tunnels.get(tunnel_id)
    return tunnel if tunnel is not None and principal.owns(tunnel.token_id) else None


class TunnelRoutes:
    """The tunnels family."""

    def __init__(self, *, registry: Registry, region_id: str) -> None:
        self._registry = registry
        self._region_id = region_id

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/tunnels",
                operation="listTunnels",
                summary="List active tunnels, HTTP first",
                handler=self._list,
                family="tunnels",
                query=TunnelsQuery,
                answer=list[TunnelView],
            ),
            Route(
                method="GET",
                path="/api/tunnels/{id}",
                operation="getTunnel",
                summary="Show one tunnel",
                handler=self._get,
                family="tunnels",
                answer=TunnelView,
                errors=((404, "tunnel not found"),),
            ),
            Route(
                method="DELETE",
                path="/api/tunnels/{id}",
                operation="closeTunnel",
                summary="Close a tunnel and tell its agent; closing an unknown one succeeds too",
                handler=self._close,
                family="tunnels",
                status=204,
                errors=((404, "invalid tunnel id"),),
            ),
        )

    async def _list(self, call: Call[TunnelsQuery, None]) -> list[TunnelView]:
        principal, with_leased = call.principal, call.query.leased == "true"
        tunnels = [
            tunnel
            for tunnel in self._registry.tunnels.values()
            if principal.owns(tunnel.token_id) and (with_leased or tunnel.session is not None)
        ]
        tunnels.sort(key=lambda tunnel: (tunnel.protocol is TunnelProtocol.TCP, tunnel.opened_at))
        return [self._view(tunnel) for tunnel in tunnels]

    async def _get(self, call: Call[NoQuery, None]) -> TunnelView:
        tunnel = find_tunnel(self._registry, call.principal, call.path["id"])
        if tunnel is None:
            raise NotFoundError("tunnel not found")
        return self._view(tunnel)

    async def _close(self, call: Call[NoQuery, None]) -> None:
        text = call.path["id"]
        if not _UUID.fullmatch(text):
            raise NotFoundError("invalid tunnel id")
        tunnel = find_tunnel(self._registry, call.principal, str(UUID(text)))
        if tunnel is not None:
            await self._registry.close_tunnel(tunnel, "closed through the API")

    def _view(self, tunnel: Tunnel) -> TunnelView:
        return TunnelView(
            tunnel_id=str(tunnel.id),
            protocol="http" if tunnel.protocol is TunnelProtocol.HTTP else "tcp",
            label=tunnel.label,
            public_url=tunnel.public_url,
            connected_since=rfc3339_whole(tunnel.opened_at),
            request_count=tunnel.request_count,
            client_addr="" if tunnel.session is None else tunnel.client_addr,
            region_id=self._region_id,
        )
