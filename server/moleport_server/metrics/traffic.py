"""Shows the plain numbers of the hot path to Prometheus when it scrapes."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from moleport_server.metrics.catalogue import (
    BYTES,
    CODE_CLASSES,
    REQUEST_DURATION,
    REQUESTS,
    UPSTREAM_DURATION,
    Row,
)
from moleport_server.metrics.counters import ByteCounters, Durations, RequestCounters


class TrafficCollector(Collector):
    """Turns counters into metric families; the counters stay with those who bump them."""

    def __init__(
        self, *, http: RequestCounters, http_bytes: ByteCounters, tcp_bytes: ByteCounters
    ) -> None:
        self._http = http
        self._bytes = {"http": http_bytes, "tcp": tcp_bytes}

    def collect(self) -> Iterator[Metric]:
        """Yield the current numbers."""
        requests = CounterMetricFamily(REQUESTS.name, REQUESTS.meaning, labels=["protocol", "code"])
        for code, count in zip(CODE_CLASSES, self._http.codes, strict=True):
            requests.add_metric(["http", code], count)
        yield requests
        yield _histogram(REQUEST_DURATION, self._http.durations)
        yield _histogram(UPSTREAM_DURATION, self._http.upstream)
        amounts = CounterMetricFamily(BYTES.name, BYTES.meaning, labels=["protocol", "direction"])
        for protocol, counters in self._bytes.items():
            amounts.add_metric([protocol, "to_agent"], counters.to_agent)
            amounts.add_metric([protocol, "to_visitor"], counters.to_visitor)
        yield amounts


def _histogram(row: Row, durations: Durations) -> HistogramMetricFamily:
    cumulative: list[tuple[str, float]] = []
    total = 0
    bounds = [*(repr(bound) for bound in row.buckets), "+Inf"]
    for bound, count in zip(bounds, durations.buckets, strict=True):
        total += count
        cumulative.append((bound, total))
    family = HistogramMetricFamily(row.name, row.meaning, labels=["protocol"])
    family.add_metric(["http"], cumulative, durations.sum_seconds)
    return family
