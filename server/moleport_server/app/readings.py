"""Where the live gauges read their numbers: the one place that knows both the pieces and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moleport_server.access.admission import PreAuthGate
from moleport_server.agents.flow import FlowWatch
from moleport_server.capture.ring import CaptureLog
from moleport_server.capture.writer import CaptureWriter
from moleport_server.edge.http import HttpEdge
from moleport_server.edge.tcp import TcpEdge
from moleport_server.edge.tls import CertificateStore
from moleport_server.metrics.live import Readings
from moleport_server.registry.registry import Registry


def make_readings(
    *,
    registry: Registry,
    edge: HttpEdge,
    tcp: TcpEdge,
    flow: FlowWatch,
    captures: CaptureLog,
    writer: CaptureWriter,
    gate: PreAuthGate,
    certificates: Mapping[str, CertificateStore],
    is_draining: Callable[[], bool],
) -> Readings:
    """Return the callables that are read at each scrape."""

    def count_tunnels(*, live: bool) -> dict[str, float]:
        counts = {"http": 0.0, "tcp": 0.0}
        for tunnel in registry.tunnels.values():
            if (tunnel.session is not None) is live:
                counts[tunnel.protocol.value] += 1
        return counts

    def expirations() -> dict[str, float]:
        ends: dict[str, float] = {}
        for store in certificates.values():
            ends.update(store.expirations())
        return ends

    def send_buffers() -> float:
        return float(sum(s.upstream.buffered_bytes for s in registry.sessions.values()))

    return Readings(
        agents_connected=lambda: len(registry.sessions),
        tunnels_active=lambda: count_tunnels(live=True),
        leases=lambda: count_tunnels(live=False),
        held_requests=lambda: registry.holds.count,
        connections_active=lambda: {"http": len(edge.connections), "tcp": tcp.connection_count},
        unauthenticated_connections=lambda: gate.waiting,
        descriptors_available=lambda: edge.descriptors.available,
        streams_open=lambda: sum(s.upstream.open_streams for s in registry.sessions.values()),
        streams_stalled=lambda: flow.stalled_streams,
        receive_buffer_bytes=lambda: flow.budget.held_bytes,
        send_buffer_bytes=send_buffers,
        capture_bytes=lambda: captures.size_bytes,
        capture_queue_bytes=lambda: writer.queued_bytes,
        certificate_expirations=expirations,
        draining=is_draining,
        credit_stall_seconds=lambda: {
            "to_agent": flow.blocked_seconds,
            "to_visitor": flow.stalled_seconds,
        },
        captures=lambda: captures.added,
        captures_written=lambda: writer.written,
        captures_dropped=lambda: {reason.value: n for reason, n in writer.dropped.items()},
    )
