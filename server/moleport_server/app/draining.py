"""Draining: not ready any more, accept for a moment longer, tell the agents, finish what is under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from moleport_server.app.data_plane import DataPlane
from moleport_server.app.listeners import Listeners
from moleport_server.app.readiness import Readiness
from moleport_server.config.settings import CoreSettings

logger = logging.getLogger(__name__)

REASON: Final = "the server is restarting"
"""What agents are told."""


async def drain(
    settings: CoreSettings,
    *,
    readiness: Readiness,
    listeners: Listeners,
    data_plane: DataPlane,
    end_event_streams: Callable[[], None],
) -> None:
    """Finish what is under way until the deadline, and end every session; takes as long as it says."""
    readiness.is_draining = True
    logger.info(
        "draining",
        extra={"delay_seconds": settings.drain_delay_seconds, "seconds": settings.drain_seconds},
    )
    # Until the last load balancer has heard that we are not ready.
    await asyncio.sleep(settings.drain_delay_seconds)
    data_plane.agents.is_draining = True
    data_plane.rustunnel.is_draining = True
    listeners.stop()
    data_plane.registry.drain(REASON, settings.drain_seconds)
    data_plane.tunnel_listeners.drain()
    data_plane.edge.drain()
    data_plane.tcp.drain()
    end_event_streams()
    await _finish(data_plane, settings.drain_seconds)
    data_plane.edge.close()
    data_plane.tcp.close_all()
    data_plane.registry.close(REASON)


async def _finish(data_plane: DataPlane, seconds: float) -> None:
    edge, tcp = data_plane.edge, data_plane.tcp
    try:
        async with asyncio.timeout(seconds):
            # Requests end on the hot path, which must not pay for waking a waiter so rare.
            while edge.active_exchanges or tcp.connection_count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        logger.warning(
            "drain deadline passed, resetting what is left",
            extra={"requests": edge.active_exchanges, "connections": tcp.connection_count},
        )
