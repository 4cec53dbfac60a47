"""The front before the agents' doors and the REST API; opened for agents before there is a REST API."""

from __future__ import annotations

from contextlib import AsyncExitStack

from moleport_server.agents.hoody.door import CONNECT_PATH, HoodyDoor
from moleport_server.agents.rustunnel.door import make_doors
from moleport_server.app.data_plane import DataPlane
from moleport_server.app.doorkeeping import Doorkeeping
from moleport_server.app.foundation import Foundation
from moleport_server.config.bounds import LimitSettings
from moleport_server.edge.front import Door, Front


def build_front(
    limits: LimitSettings,
    foundation: Foundation,
    doorkeeping: Doorkeeping,
    data_plane: DataPlane,
    stack: AsyncExitStack,
) -> Front:
    """Build it; nobody listens yet, and callers of the REST API have to wait."""
    strangers, sessions = doorkeeping.strangers, data_plane.registry.sessions
    doors: dict[str, Door] = {
        CONNECT_PATH: HoodyDoor(data_plane.agents),
        **make_doors(data_plane.rustunnel),
    }
    front = Front(doors, strangers, head_seconds=limits.first_frame_seconds)
    stack.callback(front.close)
    foundation.descriptors.count_others = lambda: (
        strangers.waiting
        + front.rest_connections
        + sum(session.connections for session in sessions.values())
    )
    return front
