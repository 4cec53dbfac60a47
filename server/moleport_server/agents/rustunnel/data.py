"""One WebSocket of the data channel, from its upgrade to its end.

Bytes of yamux, cut anywhere; everything is passed on to the port that the session made for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moleport_wire.aio.transport import MessageTransport

if TYPE_CHECKING:
    from moleport_server.agents.rustunnel.session import RustunnelSession
    from moleport_wire.aio.muxer import YamuxPort


class DataChannel:
    """A `MessageReceiver` that attaches itself to its session."""

    def __init__(self, session: RustunnelSession) -> None:
        self._session = session
        self._port: YamuxPort | None = None

    def transport_opened(self, transport: MessageTransport) -> None:
        """Attach; drops the connection if the session ended meanwhile."""
        self._port = self._session.attach(transport)

    def message_received(self, message: bytes) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.message_received(message)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.transport_lost(close_code, reason)

    def pause_writing(self) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.resume_writing()
