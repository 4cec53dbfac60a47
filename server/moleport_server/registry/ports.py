"""What the registry asks of others: a listener per TCP tunnel."""

from typing import Protocol

from moleport_server.registry.live import Tunnel


class PortListeners(Protocol):
    """Opens and closes the public listener of a TCP tunnel; implemented by the TCP edge."""

    async def open(self, tunnel: Tunnel) -> None:
        """Listen on `tunnel.port`.

        Raises:
            PortTaken: another program uses the port.
        """

    def close(self, tunnel: Tunnel, *, reason: str) -> None:
        """Stop listening and end the tunnel's connections; idempotent."""
