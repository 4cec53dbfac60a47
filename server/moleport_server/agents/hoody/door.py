"""The door of hoody-tunnel agents: what an upgrade of the tunnel path has to offer."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from moleport_server.agents.hoody.login import AgentSessions
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer
from moleport_wire.hoody import frames
from moleport_wire.hoody.messages import SUBPROTOCOL_V1, SUBPROTOCOL_V2, VERSIONS, VERSIONS_HEADER

CONNECT_PATH: Final = "/api/v1/tunnel/connect"


class HoodyDoor:
    """Negotiates the subprotocol and finds the credential (an `edge.front.Door`)."""

    def __init__(self, agents: AgentSessions) -> None:
        self._agents = agents

    def answer(
        self, upgrade: Upgrade, *, address: str, on_authenticated: Callable[[], None]
    ) -> UpgradeAnswer:
        """Accept with the newest subprotocol that the agent offers."""
        offered = upgrade.subprotocols
        chosen = next((name for name in (SUBPROTOCOL_V2, SUBPROTOCOL_V1) if name in offered), None)
        if chosen is None:
            return UpgradeAnswer.refusal(
                400,
                f"offer one of the subprotocols {VERSIONS}",
                {VERSIONS_HEADER: VERSIONS},
            )
        if self._agents.is_draining:
            return UpgradeAnswer.refusal(503, "the server is shutting down", {"Retry-After": "2"})
        receiver = self._agents.connection(
            subprotocol=chosen,
            secret=_secret_of(upgrade),
            address=address,
            on_authenticated=on_authenticated,
        )
        return UpgradeAnswer(receiver=receiver, subprotocol=chosen, divide=frames.divide)


def _secret_of(upgrade: Upgrade) -> str | None:
    """Return the credential of an upgrade request, in one of the ways of the family's clients.

    Bearer tokens, the password of basic authentication (whatever its user is), the token beside a
    container claim, and `?token=`, which is all that clients without headers can do.
    """
    headers = upgrade.headers
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret:
        return secret.strip()
    if scheme.lower() == "basic":
        return _password(secret)
    claimed = headers.get("x-hoody-token")
    if claimed:
        return claimed.strip()
    query = upgrade.path.partition("?")[2]
    values = parse_qs(query).get("token") if query else None
    return values[0] if values else None


def _password(encoded: str) -> str | None:
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return None
    return pair.partition(":")[2] or None
