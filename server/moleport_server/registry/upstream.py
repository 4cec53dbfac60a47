"""The port between the edge and whatever protocol an agent speaks.

The edge sees byte streams only: it opens one for a tunnel, writes and reads through it and learns how
it ended. Protocol adapters (`agents/`) implement `Upstream` and `ByteStream`; the edge implements
`StreamReceiver`. All calls but `is_alive` are synchronous and happen on the event loop: this is the
hot path.

Flow control: after `stream_pause_writing` the writer stops until `stream_resume_writing` (what it still
writes is queued, nothing is lost). A receiver that cannot take more calls `pause_reading`; the peer is
then stopped by its stream window, never by the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.streams import StreamReceiver

if TYPE_CHECKING:
    from moleport_server.registry.live import Tunnel


class ByteStream(Protocol):
    """One bidirectional byte flow to the local service."""

    receiver: StreamReceiver
    """Who hears about this stream; the owner may exchange it while nothing is in flight."""

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        ...

    @property
    def queued_bytes(self) -> int:
        """Bytes that were written and wait for credit or for their turn."""
        ...

    def write(self, data: Payload) -> None:
        """Send bytes; never blocks. Ignored when the stream is closed."""

    def write_eof(self) -> None:
        """Send the end of our direction, behind everything written; idempotent."""

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions now; idempotent. The receiver is not called any more."""

    def pause_reading(self) -> None:
        """Grant no more credit until `resume_reading`."""

    def resume_reading(self) -> None:
        """Grant the credit that was held back, and go on."""


class WaitingStream(NamedTuple):
    """What a stream that never existed for the agent leaves to the one in its place."""

    receiver: StreamReceiver
    """Who has to be told its new stream."""
    pieces: list[Payload]
    """What was written to it."""
    was_paused: bool
    """Whether its writer was asked to pause."""


class Upstream(Protocol):
    """One agent session, as the registry and the edge see it."""

    @property
    def open_streams(self) -> int:
        """How many streams are open now."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether streams wait for others: idle ones are to be passed on or given up."""
        ...

    def take_waiting(self, tunnel: Tunnel) -> WaitingStream | None:
        """Take the stream that has waited longest, for an idle one of its tunnel to serve.

        None if it waits for another tunnel: then only the end of the idle stream helps it.
        """
        ...

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be written to the agent."""
        ...

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ByteStream:
        """Open a stream to the tunnel's local service on behalf of the visitor `peer` (`ip:port`).

        Raises:
            UpstreamBusy: a stream or memory cap is reached.
            NoSession: the session is gone, or its agent was not told about the tunnel yet.
        """
        ...

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Tell the agent about a finished request or connection, if it wants to know; cheap."""

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """Tell the agent that one tunnel was taken from it, and why."""

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell the agent to connect elsewhere before the deadline."""

    def end(self, code: int, reason: str, grace_seconds: float = 0.0) -> None:
        """End the session and tell the agent why, at once.

        An agent whose protocol has a word for it may close its connections itself for `grace_seconds`;
        then they are closed. The session takes no more streams from here on.
        """

    async def is_alive(self, timeout_seconds: float) -> bool:
        """Ping the agent and tell whether it answered in time."""
        ...
