"""The health listener: `/metrics`, `/livez` and `/readyz`, for Prometheus and the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from moleport_operator.errors import ConfigError


@asynccontextmanager
async def serve_health(
    host: str,
    port: int,
    *,
    registry: CollectorRegistry,
    readiness: Callable[[], tuple[bool, str]],
    silence: Callable[[], str | None],
) -> AsyncIterator[int]:
    """Listen until the context ends; yields the port.

    Args:
        host: address to bind.
        port: 0 takes a free one.
        registry: what `/metrics` shows.
        readiness: whether we are ready, and a text for people.
        silence: what hangs so that only a restart helps, or None.

    Raises:
        ConfigError: the port is taken.
    """

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez(_: web.Request) -> web.Response:
        # That the loop answers is one half of the check; kopf has a loop of its own.
        text = silence()
        return web.Response(status=503 if text else 200, text=f"{text or 'ok'}\n")

    async def readyz(_: web.Request) -> web.Response:
        is_ready, text = readiness()
        return web.Response(status=200 if is_ready else 503, text=f"{text}\n")

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError([f"cannot listen on {host}:{port}: {error.strerror}"]) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
