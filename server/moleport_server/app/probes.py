"""The probes of the kubelet and of Prometheus: the last to open, since they ask again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web
from prometheus_client import CollectorRegistry

from moleport_server.app.readiness import Readiness
from moleport_server.health import make_health_app


async def build_probes(
    collectors: CollectorRegistry, readiness: Readiness, stack: AsyncExitStack
) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of each connection; nobody listens yet."""
    runner = web.AppRunner(
        make_health_app(collectors, readiness.not_ready_because),
        access_log=None,
        handle_signals=False,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    server = runner.server
    assert server is not None  # noqa: S101 - set up above
    return server
