"""The TCP edge: one listener per TCP tunnel, each connection spliced with a stream.

A connection that meets an absent agent is accepted, not read, and held like a request; when nobody
comes back it is reset. Half close passes through; everything else that ends ends with a reset.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moleport_server.access.addresses import is_admitted
from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.config.values import Endpoint
from moleport_server.edge.accepting import Acceptor
from moleport_server.edge.plain_listener import ProxyPreamble, listen
from moleport_server.edge.resets import stream_error_reason
from moleport_server.edge.throttle import throttled
from moleport_server.errors import NoSession, PortTaken, UpstreamBusy
from moleport_server.registry.live import Tunnel
from moleport_server.registry.upstream import ByteStream
from moleport_wire.aio.resets import watch_while_paused
from moleport_wire.aio.sockets import ReadBuffer, format_peer
from moleport_wire.aio.splice import Splice
from moleport_wire.hoody.frames import Code

if TYPE_CHECKING:
    from moleport_server.access.bounds import Bandwidth
    from moleport_server.clock import Clock
    from moleport_server.metrics.instruments import EdgeMetrics
    from moleport_server.registry.registry import Registry

logger = logging.getLogger(__name__)


class TcpEdge:
    """All TCP tunnels' listeners and connections (the registry's `PortListeners`).

    Args:
        endpoint: where the tunnel with a port listens.
        metrics: counts connections.
        clock: for durations and holds.
        max_connections: of all tunnels.
        connections_per_tunnel: of each.
        preamble: who sends PROXY headers; None: nobody.
        descriptors: what connections take their share of.
        bind: returns a listening socket, which may have been listening already.
    """

    def __init__(
        self,
        endpoint: Callable[[int], Endpoint],
        *,
        metrics: EdgeMetrics,
        clock: Clock,
        max_connections: int,
        connections_per_tunnel: int,
        preamble: ProxyPreamble | None,
        descriptors: DescriptorBudget,
        bind: Callable[[Endpoint], socket.socket],
    ) -> None:
        self._endpoint = endpoint
        self._bind = bind
        self._descriptors = descriptors
        self._preamble = preamble
        self._servers: dict[int, Acceptor] = {}
        self._connections: dict[Tunnel, set[TcpConnection]] = {}
        self.buffer = ReadBuffer()
        self.metrics = metrics
        # Looking a child up costs as much as a connection's other bookkeeping.
        self._accepted = metrics.connections.labels("tcp", "accepted")
        self._durations = metrics.connection_duration.labels("tcp")
        self.monotonic = clock.monotonic
        self.max_connections = max_connections
        self.connections_per_tunnel = connections_per_tunnel
        self.connection_count = 0
        self.is_draining = False
        self.registry: Registry

    async def open(self, tunnel: Tunnel) -> None:
        """Listen on the tunnel's port.

        Raises:
            PortTaken: another program uses it.
        """
        container = tunnel.container
        port = tunnel.port if container is None else container.port
        assert port is not None  # noqa: S101 - only TCP tunnels and PULL ports come here
        endpoint = self._endpoint(port) if container is None else Endpoint(container.host, port)
        try:
            sock = self._bind(endpoint)
        except OSError as error:
            reason = "in use by another program" if error.errno == errno.EADDRINUSE else str(error)
            raise PortTaken(f"port {port} is {reason}") from error
        self._servers[port] = listen(
            sock,
            lambda address: TcpConnection(self, tunnel, address).protocol(),
            # Nothing is between a container of the pod and its loopback.
            preamble=self._preamble if container is None else None,
        )

    def close(self, tunnel: Tunnel, *, reason: str) -> None:
        """Stop listening and reset the tunnel's connections; idempotent."""
        port = tunnel.port if tunnel.container is None else tunnel.container.port
        server = self._servers.pop(port or 0, None)
        if server is not None:
            server.close()
        for connection in list(self._connections.get(tunnel, ())):
            connection.end(Code.CANCEL, reason)

    def drain(self) -> None:
        """Accept nothing new; open connections go on."""
        self.is_draining = True
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def close_all(self) -> None:
        """Reset every connection."""
        self.drain()
        for connections in list(self._connections.values()):
            for connection in list(connections):
                connection.end(Code.CANCEL, "the server ends")

    def connections_of(self, tunnel: Tunnel) -> list[TcpConnection]:
        """Return the open connections of a tunnel."""
        return list(self._connections.get(tunnel, ()))

    def opened(self, connection: TcpConnection) -> bool:
        """Count a connection; False when a limit is reached."""
        of_tunnel = self._connections.setdefault(connection.tunnel, set())
        if (
            self.connection_count >= self.max_connections
            or len(of_tunnel) >= self.connections_per_tunnel
            or self.is_draining
            or not self._descriptors.take()
        ):
            if not of_tunnel:
                del self._connections[connection.tunnel]
            self.metrics.connections.labels("tcp", "refused").inc()
            return False
        of_tunnel.add(connection)
        self.connection_count += 1
        connection.tunnel.active += 1
        self._accepted.inc()
        return True

    def closed(self, connection: TcpConnection, seconds: float) -> None:
        """Forget a connection, report it to the agent."""
        tunnel = connection.tunnel
        of_tunnel = self._connections.get(tunnel)
        if of_tunnel is None or connection not in of_tunnel:
            return
        of_tunnel.discard(connection)
        if not of_tunnel:
            del self._connections[tunnel]
        self.connection_count -= 1
        self._descriptors.give_back()
        tunnel.active -= 1
        self._durations.observe(seconds)
        session = tunnel.session
        if session is not None:
            session.upstream.report(tunnel, b"TCP", b"", 0, seconds, connection.peer)
        events = self.registry.events
        if events.is_watched:
            events.publish(
                "request.finished",
                tunnel.token_id,
                {
                    "tunnel_id": str(tunnel.id),
                    "label": tunnel.label,
                    "method": "TCP",
                    "path": "",
                    "status": 0,
                    "duration_ms": round(seconds * 1000, 3),
                    "request_bytes": connection.bytes_in,
                    "response_bytes": connection.bytes_out,
                    "peer": connection.peer,
                    "request_id": "",
                },
            )


class TcpConnection(Splice):
    """One visitor of a TCP tunnel."""

    def __init__(self, edge: TcpEdge, tunnel: Tunnel, address: tuple[str, int] | None) -> None:
        super().__init__(edge.buffer, self._ended_with, self._count)
        self._edge = edge
        self._told_address = address
        self._started_at = edge.monotonic()
        self._held_at: float | None = None
        self._joined: ByteStream | None = None
        """Its stream; the splice knows it as less."""
        self.tunnel = tunnel
        self.peer = ""
        self.address = ""
        self.bytes_in = 0
        self.bytes_out = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the visitor and join it to a stream."""
        self._adopt(transport)
        self._admit(transport)
        self._settle()

    def _admit(self, transport: asyncio.BaseTransport) -> None:
        peername: Any = self._told_address or transport.get_extra_info("peername")
        self.peer = format_peer(peername)
        tunnel = self.tunnel
        self.address = peername[0] if self.peer else ""
        if not tunnel.rules.is_open and not is_admitted(tunnel.rules, self.address):
            self._edge.metrics.policy_denied.labels("address").inc()
            self.end(Code.CANCEL, "the address is not allowed")
            return
        bounds = tunnel.bounds
        if bounds is not None:
            if bounds.take_request(self._edge.monotonic()) > 0:
                self._edge.metrics.rate_limited.labels("token_requests").inc()
                self.end(Code.CANCEL, "connections come too fast")
                return
            if bounds.is_full(tunnel.active):
                self._edge.metrics.connections.labels("tcp", "refused").inc()
                self.end(Code.CANCEL, "too many connections")
                return
        if not self._edge.opened(self):
            self.end(Code.CANCEL, "too many connections")
            return
        tunnel.request_count += 1
        self._join_or_hold()

    def stream_pause_writing(self) -> None:
        """Stop reading, but not to look whether the visitor is there."""
        super().stream_pause_writing()
        if self.transport is not None:
            watch_while_paused(self.transport)

    def peer_left(self, *, is_broken: bool) -> None:
        """Pass a break on at once, though the agent has no room; an end keeps its turn behind the bytes."""
        if is_broken:
            self.end(Code.CANCEL, "connection broken")

    def stream_reset(self, code: int, reason: str) -> None:
        """Count how the stream died, and abort the visitor."""
        self._edge.metrics.stream_errors.labels(stream_error_reason(code)).inc()
        super().stream_reset(code, reason)

    def hold_ended(self, *, returned: bool) -> None:
        """Join when the agent is back, reset when nobody comes."""
        if self._held_at is not None:
            seconds = self._edge.monotonic() - self._held_at
            self._edge.metrics.hold_duration.observe(seconds)
            self._edge.metrics.held.labels("tcp", "served" if returned else "expired").inc()
            self._held_at = None
        if returned:
            self._join_or_hold()
        else:
            self.end(Code.CANCEL, "the agent is away")

    def _join_or_hold(self) -> None:
        session = self.tunnel.session
        if session is None:
            self._hold()
            return
        try:
            stream = self._joined = session.upstream.open_stream(self.tunnel, self, self.peer)
        except UpstreamBusy as error:
            self.end(Code.CANCEL, str(error))
        except NoSession:
            self._hold()
        else:
            self.attach(stream)
            bounds = self.tunnel.bounds
            if bounds is not None and bounds.bandwidth.rate is not None:
                self.throttle(bounds.bandwidth)

    @property
    def is_held(self) -> bool:
        """Whether it waits for the agent."""
        return self._held_at is not None

    def throttle(self, bandwidth: Bandwidth) -> None:
        """Keep to the bandwidth from here on."""
        stream = self._joined
        if stream is not None:
            self._stream = self._joined = throttled(stream, bandwidth)

    def _hold(self) -> None:
        if not self.tunnel.may_hold:
            self.end(Code.CANCEL, "the agent is away")
        elif self._edge.registry.holds.join(self.tunnel, self):
            self._held_at = self._edge.monotonic()
        else:
            self._edge.metrics.held.labels("tcp", "refused").inc()
            self.end(Code.CANCEL, "the agent is away")

    def _count(self, to_visitor: int, to_agent: int) -> None:
        self.bytes_out += to_visitor
        self.bytes_in += to_agent
        counters = self._edge.metrics.tcp_bytes
        counters.to_visitor += to_visitor
        counters.to_agent += to_agent
        self.tunnel.bytes_out += to_visitor
        self.tunnel.bytes_in += to_agent

    def _ended_with(self, splice: Splice, reason: str) -> None:
        del splice, reason
        if self._held_at is not None:
            self._edge.metrics.hold_duration.observe(self._edge.monotonic() - self._held_at)
            self._edge.metrics.held.labels("tcp", "abandoned").inc()
            self._held_at = None
            self._edge.registry.holds.leave(self.tunnel, self)
        self._edge.closed(self, self._edge.monotonic() - self._started_at)
        self._joined = None  # it refers to us
