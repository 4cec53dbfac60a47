"""Numbers that are read when Prometheus scrapes: their owners know them, so nobody counts twice.

A gauge that is moved up and down by hand drifts with the first forgotten path; these cannot. The
counters among them are plain numbers of parts that have no other use for metrics.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moleport_server.metrics import catalogue
from moleport_server.metrics.catalogue import Row

Count = Callable[[], float]
ByProtocol = Callable[[], Mapping[str, float]]
"""Keys `http` and `tcp`; a missing one is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Where the numbers come from; called on the event loop at each scrape, so be quick."""

    agents_connected: Count
    tunnels_active: ByProtocol
    leases: ByProtocol
    held_requests: Count
    connections_active: ByProtocol
    unauthenticated_connections: Count
    descriptors_available: Count
    streams_open: Count
    streams_stalled: Count
    receive_buffer_bytes: Count
    send_buffer_bytes: Count
    capture_bytes: Count
    capture_queue_bytes: Count
    certificate_expirations: Callable[[], Mapping[str, float]]
    """Place in the settings to Unix seconds."""
    draining: Callable[[], bool]
    credit_stall_seconds: Callable[[], Mapping[str, float]]
    """Keys `to_agent` and `to_visitor`; never falls."""
    captures: Count
    captures_written: Count
    captures_dropped: Callable[[], Mapping[str, float]]
    """By reason."""


_SINGLE = {
    "agents_connected": catalogue.AGENTS_CONNECTED,
    "held_requests": catalogue.HELD_NOW,
    "unauthenticated_connections": catalogue.UNAUTHENTICATED,
    "descriptors_available": catalogue.DESCRIPTORS,
    "streams_open": catalogue.STREAMS,
    "streams_stalled": catalogue.STREAMS_STALLED,
    "receive_buffer_bytes": catalogue.RECEIVE_BUFFER,
    "send_buffer_bytes": catalogue.SEND_BUFFER,
    "capture_bytes": catalogue.CAPTURE_BYTES,
    "capture_queue_bytes": catalogue.CAPTURE_QUEUE,
    "draining": catalogue.DRAINING,
}
_BY_PROTOCOL = {
    "tunnels_active": catalogue.TUNNELS_ACTIVE,
    "leases": catalogue.LEASES,
    "connections_active": catalogue.CONNECTIONS_ACTIVE,
}
_BY_NAME = {"certificate_expirations": catalogue.CERTIFICATES}
_COUNTS = {
    "captures": catalogue.CAPTURES,
    "captures_written": catalogue.CAPTURES_WRITTEN,
}
_COUNTS_BY_NAME = {
    "credit_stall_seconds": catalogue.CREDIT_STALL,
    "captures_dropped": catalogue.CAPTURES_DROPPED,
}


class LiveNumbers(Collector):
    """Reads everything once per scrape."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """Yield the current numbers, and those that rustunnel's dashboards expect."""
        for name, row in _SINGLE.items():
            yield _single(row, getattr(self._readings, name)())
        for name, row in _BY_PROTOCOL.items():
            numbers = getattr(self._readings, name)()
            yield _labelled(row, {key: numbers.get(key, 0) for key in row.labels["protocol"]})
        for name, row in _BY_NAME.items():
            yield _labelled(row, getattr(self._readings, name)())
        for name, row in _COUNTS.items():
            yield CounterMetricFamily(row.name, row.meaning, value=getattr(self._readings, name)())
        for name, row in _COUNTS_BY_NAME.items():
            yield _counts(row, getattr(self._readings, name)())
        tunnels = self._readings.tunnels_active()
        yield _single(catalogue.RUSTUNNEL_SESSIONS, self._readings.agents_connected())
        yield _single(catalogue.RUSTUNNEL_HTTP, tunnels.get("http", 0))
        yield _single(catalogue.RUSTUNNEL_TCP, tunnels.get("tcp", 0))


def _single(row: Row, number: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(row.name, row.meaning, value=float(number))


def _labelled(row: Row, numbers: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(row.name, row.meaning, labels=list(row.labels))
    for key, number in numbers.items():
        family.add_metric([key], number)
    return family


def _counts(row: Row, numbers: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(row.name, row.meaning, labels=list(row.labels))
    (values,) = row.labels.values()
    for value in values:
        family.add_metric([value], numbers.get(value, 0))
    return family
