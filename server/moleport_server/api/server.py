"""Facts about this server, for agents, the operator and people."""

from moleport_server.api.ports import ServerFacts
from moleport_server.api.routing import Call, NoQuery, Route
from moleport_server.api.shapes import PublicView, ServerView


class ServerRoutes:
    """The server family; an extension."""

    def __init__(self, *, facts: ServerFacts) -> None:
        self._view = ServerView(
            instance_id=facts.instance_id,
            version=facts.version,
            domains=list(facts.domains),
            public=PublicView(
                http_port=facts.http_port,
                https_port=facts.https_port,
                control_port=facts.control_port,
                tcp_host=facts.tcp_host,
                tcp_ports=facts.tcp_ports,
            ),
            limits=dict(facts.limits),
        )

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/server",
                operation="getServer",
                summary="Show version, instance, domains, public ports and limits",
                handler=self._get,
                family="server",
                answer=ServerView,
                is_extension=True,
            ),
        )

    async def _get(self, _call: Call[NoQuery, None]) -> ServerView:
        return self._view
