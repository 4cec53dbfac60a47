"""Listeners without TLS: a C transport per connection, and a PROXY header before it where one is due."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from moleport_server.access.addresses import is_inside
from moleport_server.domain.tunnel import IPNetwork
from moleport_server.edge.accepting import Acceptor
from moleport_wire import proxy_protocol
from moleport_wire.aio.websocket import feed

logger = logging.getLogger(__name__)

PREAMBLE_SECONDS: Final = 5.0
"""A proxy sends its header with the connection; who does not is none."""

Address = tuple[str, int]
MakeProtocol = Callable[[Address | None], asyncio.Protocol | asyncio.BufferedProtocol]
"""Makes the protocol of a connection; the address is None unless a PROXY header told it."""


class ProxyPreamble:
    """Which peers begin their connections with a PROXY header, and how it is read."""

    def __init__(self, trusted: tuple[IPNetwork, ...]) -> None:
        self._trusted = trusted

    def is_expected_from(self, address: str) -> bool:
        """Whether this peer sends a header; from all others it would be a request."""
        return is_inside(address, self._trusted)

    def read(self, data: bytes) -> tuple[int, Address | None] | None:
        """Return the size of the header and the client in it (None: unknown), or None for more.

        Raises:
            ValueError: it is no PROXY header.
        """
        try:
            parsed = proxy_protocol.parse(data)
        except proxy_protocol.ProxyHeaderError as error:
            raise ValueError(str(error)) from error
        if parsed is None:
            return None
        source = parsed.source
        return parsed.consumed, None if source is None else (source.host, source.port)


class PreambleConnection(asyncio.Protocol):
    """Reads the PROXY header, then gives the connection to the protocol it is for."""

    def __init__(self, preamble: ProxyPreamble, make_protocol: MakeProtocol) -> None:
        self._preamble = preamble
        self._make_protocol = make_protocol
        self._transport: asyncio.Transport
        self._read = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header if this peer sends one."""
        self._transport = cast("asyncio.Transport", transport)
        peername: Any = transport.get_extra_info("peername")
        if not peername or not self._preamble.is_expected_from(peername[0]):
            self._hand_over(None, b"")
            return
        self._timer = asyncio.get_running_loop().call_later(PREAMBLE_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Collect the header; it is bounded by the parser."""
        self._read += data
        try:
            result = self._preamble.read(self._read)
        except ValueError as error:
            logger.warning("no PROXY header from a trusted proxy", extra={"error": str(error)})
            self._transport.abort()
            return
        if result is not None:
            size, source = result
            self._hand_over(source, self._read[size:])

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._cancel()

    def _hand_over(self, source: Address | None, rest: bytes) -> None:
        self._cancel()
        protocol = self._make_protocol(source)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if isinstance(protocol, asyncio.BufferedProtocol):
            feed(protocol, rest)
        elif rest:
            protocol.data_received(rest)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def listen(
    sock: socket.socket, make_protocol: MakeProtocol, *, preamble: ProxyPreamble | None = None
) -> Acceptor:
    """Accept connections on a bound socket; the caller closes the acceptor.

    Args:
        sock: from `listening.bind_listener`.
        make_protocol: called for each connection.
        preamble: who sends PROXY headers; None: nobody.
    """
    if preamble is None:
        return Acceptor(sock, lambda: make_protocol(None))
    return Acceptor(sock, lambda: PreambleConnection(preamble, make_protocol))
