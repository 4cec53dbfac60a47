"""The two doors of rustunnel clients: the control channel, and the data channel of one session."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from moleport_server.agents.rustunnel.control import ControlChannel
from moleport_server.agents.rustunnel.data import DataChannel
from moleport_server.agents.rustunnel.sessions import RustunnelSessions
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer
from moleport_wire.rustunnel.messages import CONTROL_PATH, DATA_PATH


class ControlDoor:
    """Lets every client in; its first message has to prove who it is."""

    def __init__(self, shared: RustunnelSessions) -> None:
        self._shared = shared

    def answer(
        self, upgrade: Upgrade, *, address: str, on_authenticated: Callable[[], None]
    ) -> UpgradeAnswer:
        """Accept, unless the server ends."""
        del upgrade
        if self._shared.is_draining:
            return UpgradeAnswer.refusal(503, "the server is shutting down", {"Retry-After": "2"})
        receiver = ControlChannel(self._shared, address, on_authenticated)
        return UpgradeAnswer(
            receiver=receiver,
            quick_ack=True,
            drops_faults=True,
            on_text=receiver.text_received,
        )


class DataDoor:
    """Lets in who knows the secret of a live session.

    Anybody else is refused before the upgrade: a client takes 101 for success and would come again
    every 200 ms for ever.
    """

    def __init__(self, shared: RustunnelSessions) -> None:
        self._shared = shared

    def answer(
        self, upgrade: Upgrade, *, address: str, on_authenticated: Callable[[], None]
    ) -> UpgradeAnswer:
        """Accept for a live session."""
        del address
        path = upgrade.path.partition("?")[0]
        try:
            secret = UUID(path.removeprefix(DATA_PATH))
        except ValueError:
            return UpgradeAnswer.refusal(404, "no such session")
        session = self._shared.by_secret.get(secret)
        if session is None:
            return UpgradeAnswer.refusal(404, "no such session")
        on_authenticated()
        receiver = DataChannel(session)
        return UpgradeAnswer(receiver=receiver, quick_ack=True, drops_faults=True)


def make_doors(shared: RustunnelSessions) -> dict[str, ControlDoor | DataDoor]:
    """Return the doors by path, as the front wants them."""
    return {CONTROL_PATH: ControlDoor(shared), DATA_PATH: DataDoor(shared)}
