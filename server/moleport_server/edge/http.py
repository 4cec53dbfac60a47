"""The HTTP edge: what all visitors' connections share.

Routing, limits, counts, captures and deadlines of HTTP/1.1 for people's browsers and programs. One
connection is in `connection`, one request in `exchange`, one stream to a local service in `pool`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final, cast

from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.access.visitors import Decision
from moleport_server.capture.masking import mask_target
from moleport_server.edge.connection import EdgeConnection
from moleport_server.edge.exchange import Exchange
from moleport_server.edge.forwarding import (
    append_forwarded,
    without_named,
)
from moleport_server.edge.known_heads import KnownRequests
from moleport_server.edge.overload import BusyConnection, Overload
from moleport_server.edge.pool import StreamPool
from moleport_server.edge.refusals import Refusal
from moleport_server.edge.resets import stream_error_reason
from moleport_server.registry.live import Tunnel
from moleport_wire.aio.callbacks import SocketCallbacks
from moleport_wire.aio.sockets import (
    ReadBuffer,
)
from moleport_wire.aio.tasks import TaskOwner

if TYPE_CHECKING:
    from moleport_server.access.rate_limits import KeyedLimiter
    from moleport_server.access.visitors import VisitorGate
    from moleport_server.capture.ring import CaptureLog
    from moleport_server.clock import Clock
    from moleport_server.edge.access_log import AccessLog
    from moleport_server.metrics.instruments import EdgeMetrics
    from moleport_server.registry.registry import Registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """Bounds and deadlines of the HTTP edge; 0 turns a limit off where it says so."""

    max_connections: int = 20_000
    head_bytes: int = 65_536
    head_fields: int = 200
    head_seconds: float = 30.0
    idle_seconds: float = 75.0
    response_head_seconds: float = 600.0
    body_bytes: int = 0
    """0: unlimited."""
    requests_per_tunnel: int = 4096
    """In flight at the same time."""
    requests_per_second: float = 0.0
    """Per tunnel; 0: unlimited."""
    address_requests_per_second: float = 0.0
    """Per visitor address; 0: unlimited."""
    replay_bytes: int = 16_384
    capture_body_bytes: int = 65_536
    stalled_capture_bytes: int = 16 * 1024 * 1024
    """Beginnings of bodies that captures of stalled visitors may hold; the others give theirs up."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()


class HttpEdge:
    """What all connections of the HTTP edge share."""

    def __init__(
        self,
        settings: EdgeSettings,
        registry: Registry,
        gate: VisitorGate,
        *,
        metrics: EdgeMetrics,
        captures: CaptureLog | None,
        access_log: AccessLog | None,
        tunnel_limiter: KeyedLimiter | None,
        address_limiter: KeyedLimiter | None,
        tasks: TaskOwner,
        clock: Clock,
        request_id_prefix: str,
        descriptors: DescriptorBudget,
    ) -> None:
        self.settings = settings
        self.descriptors = descriptors
        self.overload = Overload()
        self.registry = registry
        self.gate = gate
        self.tasks = tasks
        self.monotonic = clock.monotonic
        self.wall = clock.now
        self.counters = metrics.http
        self.bytes = metrics.http_bytes
        self.access_log = access_log
        self.pool = StreamPool(clock.monotonic)
        self.known_requests = KnownRequests()
        self.connections: set[EdgeConnection] = set()
        self.buffer = ReadBuffer()
        self.is_draining = False
        self.stalled_capture_bytes = 0
        """Beginnings of bodies that captures of stalled visitors hold."""
        self.now = clock.monotonic()
        """The time of the last sweep: good enough for deadlines, free to read."""
        self.has_rate_limits = tunnel_limiter is not None or address_limiter is not None
        self.keeps_bodies = captures is not None and settings.capture_body_bytes > 0
        self._captures = captures
        self._next_request_number = int if captures is None else captures.ids.requests.next
        self._metrics = metrics
        self._accepted = {
            b"http": metrics.connections.labels("edge-http", "accepted"),
            b"https": metrics.connections.labels("edge-https", "accepted"),
        }
        self._durations = metrics.connection_duration.labels("http")
        self._tunnel_limiter = tunnel_limiter
        self._address_limiter = address_limiter
        self._prefix = request_id_prefix.encode()
        self._count = itertools.count(1).__next__
        self._timer: asyncio.TimerHandle | None = None
        registry.notices.on_agent_left = lambda tunnel: self.pool.drop(tunnel, "the agent left")

    def start(self) -> None:
        """Begin to watch deadlines; `close` ends it."""
        self._sweep()

    def protocol(
        self,
        *,
        address: tuple[str, int] | None = None,
        is_tls: bool = False,
        tunnel: Tunnel | None = None,
    ) -> asyncio.Protocol | asyncio.BufferedProtocol:
        """Make the protocol of one accepted connection; see `connection`.

        Without room for it, one that says so.
        """
        if len(self.connections) >= self.settings.max_connections or not self.descriptors.available:
            self._metrics.connections.labels(
                "edge-https" if is_tls else "edge-http", "refused"
            ).inc()
            return BusyConnection(self.overload)
        return SocketCallbacks(self.connection(address=address, is_tls=is_tls, tunnel=tunnel))

    def connection(
        self,
        *,
        address: tuple[str, int] | None = None,
        is_tls: bool = False,
        tunnel: Tunnel | None = None,
    ) -> EdgeConnection:
        """Make one accepted connection.

        Args:
            address: the visitor as a PROXY header told it; None: the socket's peer.
            is_tls: whether the visitor used TLS.
            tunnel: the only one that it can reach, because the port is that tunnel's own.
        """
        return EdgeConnection(self, address, is_tls=is_tls, tunnel=tunnel)

    def request_head(self, exchange: Exchange, tunnel: Tunnel) -> bytes:
        """Return the head for the local service."""
        template = exchange.template
        if template is not None:
            # The same fields to the same tunnel, from the same address: all but method, target and id
            # is known. Connections share templates, so what is of the connection has to be looked at.
            connection = cast("EdgeConnection", exchange.connection)
            made_for = template.tail_for
            if (
                not made_for
                or made_for[0] is not tunnel
                or made_for[1] is not tunnel.rules
                or made_for[2] is not tunnel.host_header
                or made_for[3] != connection.address_bytes
                or made_for[4] is not connection.scheme
                or made_for[5] is not connection.is_trusted
            ):
                template.tail = self._tail(exchange, tunnel)
                template.tail_for = (
                    tunnel,
                    tunnel.rules,
                    tunnel.host_header,
                    connection.address_bytes,
                    connection.scheme,
                    connection.is_trusted,
                )
            request_id = exchange.request_id = b"%b%x" % (self._prefix, self._count())
            return b"%b %b%b%b\r\n\r\n" % (
                exchange.method,
                exchange.target,
                template.tail,
                request_id,
            )
        if exchange.request_id is None:
            exchange.request_id = b"%b%x" % (self._prefix, self._count())
        return b"%b %b%b%b\r\n\r\n" % (
            exchange.method,
            exchange.target,
            self._tail(exchange, tunnel),
            exchange.request_id,
        )

    def _tail(self, exchange: Exchange, tunnel: Tunnel) -> bytes:
        """Return what stands between the target and the value of X-Request-Id."""
        lines = exchange.lines
        if exchange.named:
            lines = without_named(lines, exchange.named)
        connection = cast("EdgeConnection", exchange.connection)  # replays bring their head along
        host = exchange.host
        assert host is not None  # noqa: S101 - checked with the head
        visitor_host = host
        if connection.is_trusted:
            forwarded = _forwarded(
                append_forwarded(exchange.forwarded_for, connection.address_bytes),
                exchange.forwarded_proto or connection.scheme,
                exchange.forwarded_host or visitor_host,
            )
        else:
            forwarded = _forwarded(connection.address_bytes, connection.scheme, visitor_host)
        if tunnel.host_header is not None:
            host = tunnel.host_header.encode("latin-1", "replace")
        framing = b""
        if exchange.is_upgrade and exchange.upgrade is not None:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % exchange.upgrade
        elif exchange.is_chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif exchange.content_length >= 0:
            framing = b"Content-Length: %d\r\n" % exchange.content_length
        authorization = exchange.authorization
        if authorization is not None and tunnel.rules.basic_auth is None:
            framing += b"Authorization: %b\r\n" % authorization
        return b" HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: " % (
            host,
            b"".join(lines) if lines else b"",
            framing,
            forwarded,
        )

    def is_secure(self, exchange: Exchange) -> bool:
        """Whether the visitor came by TLS: to us, or to a proxy that we trust to say so."""
        connection = exchange.connection
        if not isinstance(connection, EdgeConnection):
            return True  # a replay: its visitor was asked the first time
        if connection.is_trusted and exchange.forwarded_proto is not None:
            return exchange.forwarded_proto == b"https"
        return connection.scheme == b"https"

    def rate_limit_wait(self, tunnel: Tunnel, address: str) -> float:
        """Return in how many seconds the request may come again, 0 to let it pass."""
        wait = 0.0
        if self._address_limiter is not None:
            wait = self._address_limiter.take(address)
            if wait:
                self._metrics.rate_limited.labels("address_requests").inc()
                return wait
        if self._tunnel_limiter is not None:
            wait = self._tunnel_limiter.take(str(tunnel.id))
            if wait:
                self._metrics.rate_limited.labels("requests").inc()
        return wait

    def finished(self, exchange: Exchange, tunnel: Tunnel, seconds: float) -> None:
        """Capture, publish and report an exchange that reached its tunnel."""
        captures = self._captures
        request_number = 0
        if captures is not None:
            request_number = self._next_request_number()
            record = exchange.capture(request_number, seconds, self.wall())
            exchange.record = record
            captures.add(tunnel, record)
        events = self.registry.events
        if events.is_watched:
            captured_id = "" if captures is None else captures.ids.requests.format(request_number)
            self._publish(exchange, tunnel, seconds, captured_id)
        session = tunnel.session
        if session is not None:
            session.upstream.report(
                tunnel,
                exchange.method,
                exchange.target,
                exchange.status,
                seconds,
                exchange.connection.peer,
            )

    def _publish(
        self, exchange: Exchange, tunnel: Tunnel, seconds: float, captured_id: str
    ) -> None:
        self.registry.events.publish(
            "request.finished",
            tunnel.token_id,
            {
                "tunnel_id": str(tunnel.id),
                "label": tunnel.label,
                "method": exchange.method.decode("latin-1"),
                "path": mask_target(exchange.target),
                "status": exchange.status,
                "duration_ms": round(seconds * 1000, 3),
                "request_bytes": exchange.request_bytes,
                "response_bytes": exchange.response_bytes,
                "peer": exchange.connection.peer,
                "request_id": captured_id,
            },
        )

    # Rare counts, worth a labelled instrument

    def note_refusal(self, case: Refusal) -> None:
        """Count an answer of our own."""
        self._metrics.refusals.labels(case.code).inc()

    def note_denied(self, decision: Decision) -> None:
        """Count a visitor that a rule kept out."""
        rule = _RULES.get(decision)
        if rule is not None:
            self._metrics.policy_denied.labels(rule).inc()
        elif decision is Decision.RATE_LIMITED:
            self._metrics.rate_limited.labels("password_failures").inc()

    def note_token_limit(self) -> None:
        """Count a request that came too fast for its token."""
        self._metrics.rate_limited.labels("token_requests").inc()

    def note_stream_error(self, code: int) -> None:
        """Count a stream that died under a request."""
        self._metrics.stream_errors.labels(stream_error_reason(code)).inc()

    def note_retry(self) -> None:
        """Count a request that is sent again."""
        self._metrics.retries.inc()

    def note_hold(self, exchange: Exchange, *, returned: bool) -> None:
        """Count the end of a hold."""
        self._metrics.held.labels("http", "served" if returned else "expired").inc()
        self._metrics.hold_duration.observe(exchange.held_seconds)

    # Life

    def opened(self, connection: EdgeConnection) -> bool:
        """Register a connection; False when there are too many."""
        # Others may have come since its protocol was made.
        if len(self.connections) >= self.settings.max_connections or not self.descriptors.take():
            self._metrics.connections.labels(f"edge-{connection.scheme.decode()}", "refused").inc()
            return False
        self.connections.add(connection)
        self._accepted[connection.scheme].inc()
        return True

    def closed(self, connection: EdgeConnection) -> None:
        """Forget a connection; idempotent."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.descriptors.give_back()
            self._durations.observe(self.monotonic() - connection.opened_at)

    def note_abandoned_hold(self, exchange: Exchange) -> None:
        """Count a visitor that left while it was held."""
        self._metrics.held.labels("http", "abandoned").inc()
        self._metrics.hold_duration.observe(exchange.held_seconds)

    def note_refused_hold(self) -> None:
        """Count a visitor for whom the hold had no room."""
        self._metrics.held.labels("http", "refused").inc()

    def drain(self) -> None:
        """Close idle connections, and the others after their answers."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()

    def drain_tunnel(self, tunnel: Tunnel) -> None:
        """Close the idle connections of a port that is closed; the next request of others gets 404."""
        for connection in list(self.connections):
            if connection.tunnel is tunnel:
                connection.drain()

    @property
    def active_exchanges(self) -> int:
        """Connections with a request under way."""
        return sum(1 for connection in self.connections if connection.is_busy)

    def close(self) -> None:
        """End everything now."""
        self.is_draining = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self.connections):
            connection.abort()
        self.overload.close()

    def _sweep(self) -> None:
        now = self.now = self.monotonic()
        self.descriptors.look()
        for connection in list(self.connections):
            if connection.deadline < now:
                connection.deadline_passed()
        self.pool.sweep()
        self._timer = asyncio.get_running_loop().call_later(1.0, self._sweep)


def _forwarded(address: bytes, proto: bytes, host: bytes) -> bytes:
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        address,
        proto,
        host,
    )


_RULES: Final = {
    Decision.DENY_ADDRESS: "address",
    Decision.NEEDS_AUTH: "basic_auth",
    Decision.NEEDS_TLS: "tls",
    Decision.HTTP_DENIED: "http_denied",
}
