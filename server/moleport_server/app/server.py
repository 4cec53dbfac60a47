"""The tunnel server from start to end, on one page.

Everything is started inside one `AsyncExitStack`, leaves first; the reverse order is the shutdown.
SIGTERM and SIGINT: not ready any more, accept for a moment longer, tell the agents, finish what is
under way until the deadline, end with 0. A second signal ends at once.

Visitors and agents wait while a server starts, so what they need comes first. The REST API and the
probes stand on a library that takes as long to read as all of that together, and the store of captures
may be large: both are read beside the loop while agents come back and visitors are served already.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import uvloop

from moleport_server.agents import flow
from moleport_server.app.data_plane import DataPlane, build_data_plane, load_certificates
from moleport_server.app.doorkeeping import open_doors
from moleport_server.app.draining import drain
from moleport_server.app.foundation import lay_foundation, open_captures
from moleport_server.app.front import build_front
from moleport_server.app.listeners import Listeners
from moleport_server.app.periodic import every, final_flush
from moleport_server.app.readiness import Readiness
from moleport_server.app.readings import make_readings
from moleport_server.config.settings import ServerSettings
from moleport_server.edge import live_rules
from moleport_server.listening import BoundListeners
from moleport_server.metrics.live import LiveNumbers
from moleport_server.metrics.loop_lag import LoopLagProbe
from moleport_server.registry import enforcement
from moleport_wire.aio.collection import settle
from moleport_wire.aio.heap import keep_freed_memory

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 10.0
"""How often times of token use are written."""


def run(
    settings: ServerSettings,
    bound: BoundListeners,
    leased: BoundListeners,
    *,
    banner: Callable[[], None] | None = None,
) -> int:
    """Run the server until it is told to stop; returns the exit code.

    Args:
        settings: all of them; logging is configured already.
        bound: sockets that listen already; what is missing is bound when its turn comes.
        leased: the same for ports of TCP tunnels that the last run gave out.
        banner: called once when every listener is ready.

    Raises:
        ConfigError, StoreError: it could not start, and why.
        OSError: an address could not be listened on.
    """
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, bound, leased, banner))


async def _serve(
    settings: ServerSettings,
    bound: BoundListeners,
    leased: BoundListeners,
    banner: Callable[[], None] | None,
) -> int:
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        stack.callback(bound.close)
        stack.callback(leased.close)
        running = await _start(settings, bound, leased, stack)
        settle()
        logger.info("server ready", extra={"version": version("moleport")})
        if banner is not None:
            banner()
        await stop.wait()
        await drain(
            settings.server,
            readiness=running.readiness,
            listeners=running.listeners,
            data_plane=running.data_plane,
            end_event_streams=running.end_event_streams,
        )
    logger.info("server ended")
    return 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            logger.warning("second signal, ending at once")
            # Everything durable survives a crash by design, so there is nothing to wait for.
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The pieces that draining has to touch."""

    readiness: Readiness
    listeners: Listeners
    data_plane: DataPlane
    end_event_streams: Callable[[], None]


async def _start(
    settings: ServerSettings,
    bound: BoundListeners,
    leased: BoundListeners,
    stack: AsyncExitStack,
) -> _Running:
    """Build and start everything in order; `stack` takes it down in the reverse one."""
    ours = version("moleport")
    readiness = Readiness()
    foundation = await lay_foundation(settings, ours, stack)
    doorkeeping = await open_doors(settings, foundation, stack)
    data_plane = build_data_plane(settings, ours, foundation, doorkeeping, leased, stack)
    certificates = load_certificates(settings, foundation)
    counting, authenticator = foundation.counting, doorkeeping.authenticator

    counting.collectors.register(
        LiveNumbers(
            make_readings(
                registry=data_plane.registry,
                edge=data_plane.edge,
                tcp=data_plane.tcp,
                flow=data_plane.flow,
                captures=foundation.captures,
                writer=foundation.writer,
                gate=doorkeeping.strangers,
                certificates=certificates,
                is_draining=lambda: readiness.is_draining,
            )
        )
    )
    probe = LoopLagProbe(counting.process)
    probe.start()
    stack.callback(probe.close)

    await data_plane.registry.restore()
    leased.close()  # whose lease is no more

    for seconds, work, name in (
        (flow.SWEEP_SECONDS, data_plane.flow.sweep, "sweep stalled streams"),
        (FLUSH_SECONDS, authenticator.flush, "flush token use"),
        (enforcement.SWEEP_SECONDS, data_plane.enforcement.sweep, "look at tokens"),
        (live_rules.SILENCE_TICK_SECONDS, data_plane.live_rules.end_silent, "end what is silent"),
        (enforcement.TICK_SECONDS, data_plane.enforcement.tick, "end what is over"),
    ):
        foundation.background.start(every(seconds, work), name)
    stack.push_async_callback(final_flush, authenticator, foundation.journal)

    listeners = Listeners(
        settings, bound, certificates=certificates, metrics=counting.edge, stack=stack
    )
    front = build_front(settings.limits, foundation, doorkeeping, data_plane, stack)
    await listeners.open(front, data_plane.edge, doorkeeping)

    for name in ("rest_api", "probes"):
        await asyncio.to_thread(importlib.import_module, f"moleport_server.app.{name}")
    from moleport_server.app.probes import build_probes  # noqa: PLC0415 - read just now
    from moleport_server.app.rest_api import open_rest_api  # noqa: PLC0415 - read just now

    capture_store = await open_captures(settings.capture, foundation, stack)
    end_event_streams = await open_rest_api(
        settings, ours, foundation, doorkeeping, data_plane, capture_store, front, stack
    )
    listeners.open_probes(await build_probes(counting.collectors, readiness, stack))
    readiness.is_ready = True
    return _Running(
        readiness=readiness,
        listeners=listeners,
        data_plane=data_plane,
        end_event_streams=end_event_streams,
    )
