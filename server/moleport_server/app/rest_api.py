"""The REST API: for the operator, the command line and people, behind the front of the agents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from moleport_server.api.application import EVENT_STREAMS, make_app
from moleport_server.api.ports import HoodyFacts
from moleport_server.app.data_plane import DataPlane
from moleport_server.app.doorkeeping import Doorkeeping
from moleport_server.app.foundation import Foundation
from moleport_server.app.sections import server_facts
from moleport_server.config.settings import ServerSettings
from moleport_server.edge.front import Front
from moleport_server.edge.replay import Replayer
from moleport_server.store.base import CaptureStore
from moleport_server.vitals import read_vitals


async def open_rest_api(
    settings: ServerSettings,
    version: str,
    foundation: Foundation,
    doorkeeping: Doorkeeping,
    data_plane: DataPlane,
    capture_store: CaptureStore,
    front: Front,
    stack: AsyncExitStack,
) -> Callable[[], None]:
    """Build it and open it behind the front, whose callers may wait for it already.

    Returns:
        What ends the event streams: who watches would hold a drain up.
    """
    descriptors = foundation.descriptors
    application = make_app(
        registry=data_plane.registry,
        authenticator=doorkeeping.authenticator,
        enforcement=data_plane.enforcement,
        store=foundation.store,
        captures=foundation.captures,
        capture_store=capture_store,
        replay=Replayer(data_plane.edge, foundation.capture_ids.connections.next()),
        clock=foundation.clock,
        facts=server_facts(settings, version, await foundation.store.instance_id()),
        hoody=HoodyFacts(
            started_at=foundation.clock.now(),
            session_streams=settings.limits.streams_per_session,
            stock_streams=settings.hoody.max_streams,
            free_descriptors=lambda: descriptors.available,
            vitals=read_vitals,
        ),
        trusted=settings.hoody.trusted,
        audit=doorkeeping.audit,
        cors_origins=settings.api.cors_origins,
        tokens_are_admin=settings.api.tokens_are_admin,
        observe=foundation.counting.count_call,
    )
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    requests = runner.server
    assert requests is not None  # noqa: S101 - set up above
    front.open_rest(requests)
    return application[EVENT_STREAMS].close
