"""A metrics registry with everything in it, as the composition root makes it."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from moleport_server.metrics.instruments import (
    AgentMetrics,
    ApiMetrics,
    EdgeMetrics,
    ProcessMetrics,
    RegistryMetrics,
)
from moleport_server.metrics.live import LiveNumbers, Readings


def quiet_readings() -> Readings:
    """Readings of a server in which nothing exists."""
    return Readings(
        agents_connected=lambda: 0,
        tunnels_active=dict,
        leases=dict,
        held_requests=lambda: 0,
        connections_active=dict,
        unauthenticated_connections=lambda: 0,
        descriptors_available=lambda: 0,
        streams_open=lambda: 0,
        streams_stalled=lambda: 0,
        receive_buffer_bytes=lambda: 0,
        send_buffer_bytes=lambda: 0,
        capture_bytes=lambda: 0,
        capture_queue_bytes=lambda: 0,
        certificate_expirations=dict,
        draining=lambda: False,
        credit_stall_seconds=dict,
        captures=lambda: 0,
        captures_written=lambda: 0,
        captures_dropped=dict,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """All groups over one registry."""

    registry: CollectorRegistry
    edge: EdgeMetrics
    agents: AgentMetrics
    tunnels: RegistryMetrics
    api: ApiMetrics
    process: ProcessMetrics


def everything(readings: Readings | None = None) -> Everything:
    """Make and register all groups and the live gauges."""
    registry = CollectorRegistry()
    registry.register(LiveNumbers(readings or quiet_readings()))
    return Everything(
        registry=registry,
        edge=EdgeMetrics.create(registry),
        agents=AgentMetrics.create(registry),
        tunnels=RegistryMetrics.create(registry),
        api=ApiMetrics.create(registry),
        process=ProcessMetrics.create(registry, version="1.2.3", python="3.11"),
    )
