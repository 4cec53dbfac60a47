"""Rules that change while visitors are connected, and connections on which nothing moves.

Whoever is let in is not asked again for each byte, so a changed rule looks at the connections that are
open: those it leaves out are ended, the others get their throttle. A password is for the next request,
because the visitor of this one has shown the right one of its time. Silence is found by comparing byte
counts once a second, so that the data path pays nothing for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from moleport_server.access.addresses import is_admitted
from moleport_server.edge.exchange import Exchange
from moleport_server.edge.tcp import TcpConnection
from moleport_server.registry.live import Tunnel
from moleport_wire.hoody.frames import Code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from moleport_server.clock import Clock
    from moleport_server.edge.http import HttpEdge
    from moleport_server.edge.tcp import TcpEdge

logger = logging.getLogger(__name__)

SILENCE_TICK_SECONDS: Final = 1.0
"""How often silence is looked for."""
CHANGED: Final = "the rules of the tunnel changed"
SILENT: Final = "nothing moved for too long"


class LiveRules:
    """Watches the open connections of both edges.

    Args:
        http: the HTTP edge.
        tcp: the TCP edge.
        tunnels: those of the registry, by id.
        clock: for how long nothing moved.
    """

    def __init__(
        self, http: HttpEdge, tcp: TcpEdge, tunnels: Mapping[UUID, Tunnel], clock: Clock
    ) -> None:
        self._http = http
        self._tcp = tcp
        self._tunnels = tunnels
        self._clock = clock
        self._seen: dict[Exchange | TcpConnection, tuple[int, float]] = {}
        """Byte counts, and since when they have been the same."""

    def rules_changed(self, tunnel: Tunnel) -> None:
        """Let the rules and limits of a tunnel hold for its open connections."""
        rules, bounds = tunnel.rules, tunnel.bounds
        bandwidth = None if bounds is None or bounds.bandwidth.rate is None else bounds.bandwidth
        for exchange in self._exchanges():
            if exchange.tunnel is not tunnel:
                continue
            is_barred = rules.http_denied is not None or (
                rules.requires_tls and not self._http.is_secure(exchange)
            )
            if is_barred or not is_admitted(rules, exchange.connection.address):
                exchange.abort(CHANGED)
            elif bandwidth is not None:
                exchange.throttle(bandwidth)
        for connection in self._tcp.connections_of(tunnel):
            if not is_admitted(rules, connection.address):
                connection.end(Code.CANCEL, CHANGED)
            elif bandwidth is not None:
                connection.throttle(bandwidth)

    async def end_silent(self) -> None:
        """End what has been silent for too long; call it every `SILENCE_TICK_SECONDS`."""
        now, before, seen = self._clock.monotonic(), self._seen, {}
        for connection, moved, patience in self._limited():
            last = before.get(connection)
            since = now if last is None or last[0] != moved else last[1]
            if now - since < patience:
                seen[connection] = (moved, since)
            elif isinstance(connection, TcpConnection):
                connection.end(Code.CANCEL, SILENT)
            elif connection.status:
                connection.abort(SILENT)
            else:
                connection.timed_out()
        self._seen = seen

    def _limited(self) -> Iterator[tuple[Exchange | TcpConnection, int, float]]:
        """Yield what may be silent for a while only: bytes that it moved, seconds it may rest."""
        limits = {
            tunnel: tunnel.bounds.idle_seconds
            for tunnel in self._tunnels.values()
            if tunnel.bounds is not None and tunnel.bounds.idle_seconds >= 0
        }
        if not limits:
            return
        for exchange in self._exchanges():
            tunnel = exchange.tunnel
            # Held visitors wait for the agent; the lease bounds that.
            if tunnel is not None and tunnel in limits and not exchange.is_held:
                moved = exchange.request_bytes + exchange.response_bytes
                yield exchange, moved, limits[tunnel]
        for tunnel, patience in limits.items():
            for connection in self._tcp.connections_of(tunnel):
                if not connection.is_held:
                    moved = connection.bytes_in + connection.bytes_out
                    yield connection, moved, patience

    def _exchanges(self) -> list[Exchange]:
        current = (connection.current for connection in self._http.connections)
        return [exchange for exchange in current if exchange is not None]
