"""The port through which a captured request is sent again; the edge implements it."""

from typing import Protocol

from moleport_server.capture.record import Capture
from moleport_server.registry.live import Tunnel


class ReplayPort(Protocol):
    """Sends a captured request to the local service as if its visitor had come back."""

    async def send(self, tunnel: Tunnel, capture: Capture) -> Capture:
        """Send the request of `capture` and return the new capture when the answer has ended.

        The new capture is also added to the `CaptureLog`, like that of any request. Visitor rules
        are not asked again: the caller proved to own the tunnel. Cancellation abandons the request.

        Args:
            tunnel: an HTTP tunnel; it need not be the one that was captured.
            capture: with its whole original body, or without one.

        Raises:
            UnavailableError: the agent is away, or the local service refused or broke off.
        """
        ...
