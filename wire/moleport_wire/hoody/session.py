"""Which control frame is legal in which phase of a session, for both roles.

The table is the protocol: the shells ask it before they act, so that a frame out of turn ends the
session at one place. A link starts in `NEW`; the primary becomes `LIVE` with HELLO_OK, a secondary with
JOIN_OK. Stream frames are not in the table: a link that is not `LIVE` must not carry them at all.
"""

from enum import Enum
from typing import Final

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import Code


class Role(Enum):
    """Which end of the session we are."""

    KIT = "kit"
    """The server."""
    DRIVER = "driver"
    """The agent."""


class Phase(Enum):
    """Where one link stands."""

    NEW = "new"
    """Upgraded, nothing proved yet."""
    GREETED = "greeted"
    """HELLO or JOIN was sent or received, the answer is due."""
    LIVE = "live"
    """Attached to its session."""
    ENDED = "ended"
    """GOAWAY was sent or received, or the connection is gone."""


_LIVE_BOTH: Final = {frames.PING, frames.PONG, frames.GOAWAY}

RECEIVABLE: Final[dict[tuple[Role, Phase], frozenset[int]]] = {
    (Role.KIT, Phase.NEW): frozenset({frames.HELLO, frames.JOIN}),
    (Role.KIT, Phase.GREETED): frozenset({frames.GOAWAY}),
    (Role.KIT, Phase.LIVE): frozenset({frames.BIND, frames.UNBIND, frames.REAUTH, *_LIVE_BOTH}),
    (Role.KIT, Phase.ENDED): frozenset(),
    (Role.DRIVER, Phase.NEW): frozenset({frames.GOAWAY}),
    (Role.DRIVER, Phase.GREETED): frozenset(
        {frames.HELLO_OK, frames.JOIN_OK, frames.JOIN_ERR, frames.GOAWAY, frames.PING}
    ),
    (Role.DRIVER, Phase.LIVE): frozenset(
        {
            frames.BIND_OK,
            frames.BIND_ERR,
            frames.UNBIND_OK,
            frames.UNBIND_ERR,
            frames.BIND_REVOKED,
            frames.REAUTH_OK,
            frames.REAUTH_ERR,
            frames.DRAIN,
            frames.REPORT,
            frames.SHARD_MAP,
            frames.REISSUE_JOIN_TICKETS,
            *_LIVE_BOTH,
        }
    ),
    (Role.DRIVER, Phase.ENDED): frozenset(),
}
"""Control frames that each role takes in each phase."""


def is_receivable(role: Role, phase: Phase, frame_type: int) -> bool:
    """Tell whether a control frame has to be handled (True) or skipped (False).

    Raises:
        RemoteProtocolError: it is not legal in this phase.
    """
    if frame_type in RECEIVABLE[role, phase]:
        return True
    if phase is Phase.ENDED or frame_type in frames.SKIPPED_TYPES:
        return False
    raise RemoteProtocolError(
        Code.PROTOCOL_ERROR, f"frame type 0x{frame_type:02x} in phase {phase.value}"
    )
