"""What the registry asks of others: a listener per TCP tunnel and container port."""

from typing import Protocol

from moleport_server.registry.live import Tunnel


class PortListeners(Protocol):
    """Opens and closes the listener of one tunnel; implemented by the edge."""

    async def open(self, tunnel: Tunnel) -> None:
        """Listen on the port of the tunnel, public or container port.

        Raises:
            PortTaken: another program uses the port.
        """

    def close(self, tunnel: Tunnel, *, reason: str) -> None:
        """Stop listening and end the tunnel's connections; idempotent."""
