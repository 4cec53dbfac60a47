"""The transport port: an ordered connection that carries binary messages.

The muxer speaks to this port only, so the WebSocket library behind it can be exchanged by measurement.
"""

from typing import Protocol


class MessageReceiver(Protocol):
    """What a transport calls; all calls happen on the event loop."""

    def transport_opened(self, transport: "MessageTransport") -> None:
        """Start: the handshake is done."""

    def message_received(self, message: bytes) -> None:
        """Take one whole binary message."""

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """End: the connection is gone; called exactly once after `transport_opened`.

        `close_code` is that of the peer's close frame: 1005 if it had none, None without a frame.
        """

    def pause_writing(self) -> None:
        """Note that the transport's buffer is above its high-water mark."""

    def resume_writing(self) -> None:
        """Note that it is below its low-water mark again."""


class MessageTransport(Protocol):
    """An open connection."""

    @property
    def peer(self) -> str:
        """The other end as `ip:port`, IPv6 in brackets; empty if unknown."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """Bytes written but not yet taken by the kernel."""
        ...

    @property
    def awaits_pong(self) -> bool:
        """Whether the answer to the last `ping` has not come yet."""
        ...

    def limit_buffer(self, limit_bytes: int) -> None:
        """Ask the receiver to pause once so many bytes are buffered, and to resume at a quarter.

        `pause_writing` is called exactly when `buffered_bytes` reaches the limit, so that whoever
        stops at the limit is always told when to go on.
        """

    def send(self, message: bytes) -> None:
        """Write one binary message; never blocks."""

    def ping(self) -> None:
        """Send a transport-level ping; see `awaits_pong`."""

    def close(self, code: int, reason: str) -> None:
        """Write a close frame and end the connection once it is out; idempotent."""

    def abort(self) -> None:
        """Drop the connection now."""
