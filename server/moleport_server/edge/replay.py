"""Replay: sends a captured request to the local service again, as if its visitor had come back.

The original head is sent as it was (the service sees the same X-Request-Id), the answer is not kept
anywhere but in its own capture.
"""

from __future__ import annotations

import asyncio
from typing import Final

from moleport_server.capture.record import Capture
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.edge.exchange import NEVER, Exchange
from moleport_server.edge.http import HttpEdge
from moleport_server.edge.pool import UpstreamConnection
from moleport_server.errors import InvalidRequest, NoSession, UpstreamLost, UpstreamRefused
from moleport_server.registry.live import Tunnel
from moleport_wire.hoody.frames import Payload

REPLAY_SECONDS: Final = 60.0
"""A person waits for this answer."""


class ReplayConnection:
    """Stands in for the visitor: takes the answer and drops it."""

    def __init__(self, capture: Capture, number: int) -> None:
        self.number = number
        self.tunnel: Tunnel | None = None
        self.peer = capture.peer
        self.address = capture.peer.rpartition(":")[0].strip("[]")
        self.deadline = NEVER
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: Payload) -> None:
        """Drop bytes of the answer."""

    def write_all(self, parts: list[Payload]) -> None:
        """Drop pieces of the answer."""

    def write_eof(self) -> None:
        """Nothing to end."""

    def pause_reading(self) -> None:
        """Nothing to pause: the request is complete."""

    def resume_reading(self) -> None:
        """Nothing to resume."""

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """End at the switch: there is nobody to talk the new protocol."""
        exchange.visitor_left()
        upstream.abandon("replayed up to the switch of protocols")
        self._finish()

    def exchange_done(self, exchange: Exchange) -> None:
        """Note the end."""
        del exchange
        self._finish()

    def abort(self) -> None:
        """Note the end of a broken answer."""
        self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Replayer:
    """The edge's side of `capture.replay.ReplayPort`."""

    def __init__(self, edge: HttpEdge, connection_number: int) -> None:
        self._edge = edge
        self._number = connection_number

    async def send(self, tunnel: Tunnel, capture: Capture) -> Capture:
        """Send the request again and return what was captured of it.

        Raises:
            InvalidRequest: the tunnel is not an HTTP tunnel.
            NoSession: the agent is away.
            UpstreamRefused: the local service refused.
            UpstreamLost: no answer, or none in time.
        """
        if tunnel.protocol is not TunnelProtocol.HTTP:
            raise InvalidRequest("only HTTP requests can be replayed")
        if tunnel.session is None:
            raise NoSession("the agent is away")
        connection = ReplayConnection(capture, self._number)
        exchange = Exchange(self._edge, connection)
        exchange.method = capture.method
        exchange.target = capture.target
        exchange.is_head = capture.method == b"HEAD"
        exchange.is_upgrade = b"\r\nupgrade:" in capture.request_head.lower()
        exchange.is_chunked = b"\r\ntransfer-encoding: chunked" in capture.request_head.lower()
        exchange.replay(tunnel, capture.request_head, capture.request_body)
        try:
            async with asyncio.timeout(REPLAY_SECONDS):
                await connection.done
        except TimeoutError as error:
            raise UpstreamLost("no answer in 60 s") from error
        finally:
            exchange.visitor_left()
        if exchange.record is None:
            raise UpstreamLost("the request was not captured")
        if exchange.status == 502:
            raise UpstreamRefused("the local service could not be reached")
        return exchange.record
