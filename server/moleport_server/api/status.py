"""Whether the server is up, and where it is: calls that need no token."""

from aiohttp import web

from moleport_server.api.ports import Registry, ServerFacts
from moleport_server.api.problems import problem_response
from moleport_server.api.routing import Access, Call, NoQuery, Route
from moleport_server.api.shapes import RegionRow, RegionView, StatusView
from moleport_server.errors import InvalidRequest
from moleport_wire.hoody.messages import VERSIONS, VERSIONS_HEADER


class StatusRoutes:
    """The public family."""

    def __init__(self, *, registry: Registry, facts: ServerFacts) -> None:
        self._registry = registry
        self._facts = facts

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/status",
                operation="getStatus",
                summary="Tell that the server is up, and count sessions and tunnels",
                handler=self._status,
                family="status",
                access=Access.PUBLIC,
                answer=StatusView,
            ),
            Route(
                method="GET",
                path="/api/regions",
                operation="listRegions",
                summary="List the regions: this server is one",
                handler=self._regions,
                family="status",
                access=Access.PUBLIC,
                answer=list[RegionRow],
            ),
            Route(
                method="GET",
                path="/api/v1/tunnel/connect",
                operation="connectAgent",
                summary="Where agents open their WebSocket; a plain request is told so",
                handler=self._connect,
                family="agents",
                access=Access.PUBLIC,
                status=101,
                errors=((400, "this address is for agents …"),),
                is_extension=True,
            ),
        )

    async def _status(self, _call: Call[NoQuery, None]) -> StatusView:
        region = self._facts.region
        live = sum(tunnel.session is not None for tunnel in self._registry.tunnels.values())
        return StatusView(
            ok=True,
            region=RegionView(id=region.id, name=region.name, location=region.location),
            active_sessions=len(self._registry.sessions),
            active_tunnels=live,
        )

    async def _regions(self, _call: Call[NoQuery, None]) -> list[RegionRow]:
        region = self._facts.region
        row = RegionRow(
            id=region.id,
            name=region.name,
            location=region.location,
            host=region.host,
            control_port=self._facts.control_port,
            active=True,
        )
        return [row]

    async def _connect(self, _call: Call[NoQuery, None]) -> web.Response:
        error = InvalidRequest("this address is for agents, which connect to it with a WebSocket")
        response = problem_response(error, is_extension=True)
        # Whoever offers no version is told which there are, be it by a request without an upgrade.
        response.headers[VERSIONS_HEADER] = VERSIONS
        return response
