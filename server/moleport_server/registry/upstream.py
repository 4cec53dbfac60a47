"""The port between the edge and whatever protocol an agent speaks.

The edge sees byte streams only: it opens one for a tunnel, writes and reads through it and learns how
it ended. Protocol adapters (`agents/`) implement `Upstream` and `ByteStream`; the edge implements
`StreamReceiver`. All calls are synchronous and happen on the event loop: this is the hot path.

Flow control: after `pause_writing` the writer stops until `resume_writing` (a few frames more are
accepted, nothing is lost). A receiver that cannot take more calls `pause_reading`; the peer is then
stopped by its window, never by the session.
"""

from enum import IntEnum
from typing import Protocol

from moleport_server.registry.live import Tunnel


class ResetCode(IntEnum):
    """Why a stream was abandoned; the numbers are those of the hoody-tunnel protocol."""

    NONE = 0
    PROTOCOL_ERROR = 1
    INTERNAL = 2
    FLOW_CONTROL = 3
    STREAM_CLOSED = 4
    FRAME_SIZE = 5
    REFUSED = 6
    CANCEL = 7
    CALM_DOWN = 8
    BIND_ERROR = 9
    IDLE_TIMEOUT = 10
    AUTH = 11
    VERSION_MISMATCH = 12
    TAKEOVER = 13
    EXHAUSTED = 14


class StreamReceiver(Protocol):
    """What the edge wants to hear about one stream; no call comes after `stream_reset`."""

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, in order."""

    def eof_received(self) -> None:
        """Note that the agent's side sends nothing more; writing is still possible."""

    def stream_reset(self, code: int, reason: str) -> None:
        """Note that the stream is gone, by the peer or with its session; do not write any more."""

    def pause_writing(self) -> None:
        """Stop writing until `resume_writing`."""

    def resume_writing(self) -> None:
        """Continue writing."""


class ByteStream(Protocol):
    """One bidirectional byte flow to the local service."""

    receiver: StreamReceiver
    """Who hears about this stream; the owner may exchange it between two requests."""

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes; never blocks. Ignored when the stream is closed."""

    def write_eof(self) -> None:
        """Send the end of our direction, behind everything written; idempotent."""

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """Abandon both directions now; idempotent. The receiver is not called any more."""

    def pause_reading(self) -> None:
        """Grant no more credit until `resume_reading`."""

    def resume_reading(self) -> None:
        """Grant the credit that was held back, and go on."""


class Upstream(Protocol):
    """One agent session, as the registry and the edge see it."""

    @property
    def open_streams(self) -> int:
        """How many streams are open now."""
        ...

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ByteStream:
        """Open a stream to the tunnel's local service on behalf of the visitor `peer` (`ip:port`).

        Raises:
            UpstreamBusy: a stream or memory cap is reached.
            NoSession: the session is gone.
        """
        ...

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """Tell the agent that one tunnel was closed, and why."""

    def end(self, reason: str, *, resumable: bool = False) -> None:
        """End the session and tell the agent why; the registry is told through its own calls."""

    async def is_alive(self, timeout_seconds: float) -> bool:
        """Ping the agent and tell whether it answered in time."""
        ...
