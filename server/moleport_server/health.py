"""The metrics listener: `/metrics`, `/livez` and `/readyz`, for Prometheus and the kubelet."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from moleport_server.metrics.exposition import CONTENT_TYPE, render


def make_health_app(
    registry: CollectorRegistry, not_ready_because: Callable[[], str | None]
) -> web.Application:
    """Make the application.

    Args:
        registry: what `/metrics` shows.
        not_ready_because: why no traffic should come, or None when it may.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(registry), headers={"Content-Type": CONTENT_TYPE})

    async def livez(_: web.Request) -> web.Response:
        # That the loop answers at all is the check.
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = not_ready_because()
        if reason is not None:
            return web.Response(status=503, text=f"{reason}\n")
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)]
    )
    return app
