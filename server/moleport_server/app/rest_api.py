"""The REST API, and the front that stands before it and the agents' doors on the same ports."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web

from moleport_server.agents.hoody.door import CONNECT_PATH, HoodyDoor
from moleport_server.agents.rustunnel.door import make_doors
from moleport_server.api.application import EVENT_STREAMS, make_app
from moleport_server.api.ports import HoodyFacts
from moleport_server.app.data_plane import DataPlane
from moleport_server.app.doorkeeping import Doorkeeping
from moleport_server.app.foundation import Foundation
from moleport_server.app.sections import server_facts
from moleport_server.config.settings import ServerSettings
from moleport_server.edge.front import Door, Front
from moleport_server.edge.replay import Replayer
from moleport_server.registry.enforcement import Enforcement
from moleport_server.vitals import read_vitals


@dataclass(frozen=True, slots=True, kw_only=True)
class RestApi:
    """What answers on the control and API listeners."""

    application: web.Application
    front: Front
    enforcement: Enforcement

    def end_event_streams(self) -> None:
        """End those who watch, who would hold a drain up."""
        self.application[EVENT_STREAMS].close()


async def build_rest_api(
    settings: ServerSettings,
    version: str,
    foundation: Foundation,
    doorkeeping: Doorkeeping,
    data_plane: DataPlane,
    stack: AsyncExitStack,
) -> RestApi:
    """Build it; nobody listens yet."""
    registry, descriptors = data_plane.registry, foundation.descriptors
    limits, strangers = settings.limits, doorkeeping.strangers
    enforcement = Enforcement(registry, doorkeeping.authenticator, foundation.clock)
    application = make_app(
        registry=registry,
        authenticator=doorkeeping.authenticator,
        enforcement=enforcement,
        store=foundation.store,
        captures=foundation.captures,
        capture_store=foundation.capture_store,
        replay=Replayer(data_plane.edge, foundation.capture_ids.connections.next()),
        clock=foundation.clock,
        facts=server_facts(settings, version, await foundation.store.instance_id()),
        hoody=HoodyFacts(
            started_at=foundation.clock.now(),
            session_streams=limits.streams_per_session,
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
    doors: dict[str, Door] = {
        CONNECT_PATH: HoodyDoor(data_plane.agents),
        **make_doors(data_plane.rustunnel),
    }
    front = Front(doors, requests, strangers, head_seconds=limits.first_frame_seconds)
    stack.callback(front.close)
    descriptors.count_others = lambda: (
        strangers.waiting
        + len(requests.connections)
        + sum(session.connections for session in registry.sessions.values())
    )
    return RestApi(application=application, front=front, enforcement=enforcement)
