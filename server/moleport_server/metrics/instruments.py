"""Instruments in small groups, one per part of the server that counts with them.

Made once by the composition root over one `CollectorRegistry` and passed in. They are for what
happens some times per second; requests and bytes have `counters`.
"""

from dataclasses import dataclass
from itertools import product
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from moleport_server.metrics import catalogue
from moleport_server.metrics.catalogue import Row
from moleport_server.metrics.counters import ByteCounters, RequestCounters
from moleport_server.metrics.traffic import TrafficCollector


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeMetrics:
    """Visitors: their requests, connections and refusals."""

    http: RequestCounters
    http_bytes: ByteCounters
    tcp_bytes: ByteCounters
    connections: Counter
    connection_duration: Histogram
    refusals: Counter
    rate_limited: Counter
    policy_denied: Counter
    stream_errors: Counter
    held: Counter
    hold_duration: Histogram
    retries: Counter
    tls_failures: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> Self:
        """Register and return the group."""
        http, http_bytes, tcp_bytes = RequestCounters(), ByteCounters(), ByteCounters()
        registry.register(TrafficCollector(http=http, http_bytes=http_bytes, tcp_bytes=tcp_bytes))
        return cls(
            http=http,
            http_bytes=http_bytes,
            tcp_bytes=tcp_bytes,
            connections=_counter(registry, catalogue.CONNECTIONS),
            connection_duration=_histogram(registry, catalogue.CONNECTION_DURATION),
            refusals=_counter(registry, catalogue.REFUSALS),
            rate_limited=_counter(registry, catalogue.RATE_LIMITED),
            policy_denied=_counter(registry, catalogue.POLICY_DENIED),
            stream_errors=_counter(registry, catalogue.STREAM_ERRORS),
            held=_counter(registry, catalogue.HELD),
            hold_duration=_histogram(registry, catalogue.HOLD_DURATION),
            retries=_counter(registry, catalogue.RETRIES),
            tls_failures=_counter(registry, catalogue.TLS_FAILURES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMetrics:
    """Agents: logins, sessions and their latency."""

    auth_attempts: Counter
    sessions_opened: Counter
    sessions_closed: Counter
    rtt: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> Self:
        """Register and return the group."""
        return cls(
            auth_attempts=_counter(registry, catalogue.AUTH_ATTEMPTS),
            sessions_opened=_counter(registry, catalogue.SESSIONS_OPENED),
            sessions_closed=_counter(registry, catalogue.SESSIONS_CLOSED),
            rtt=_histogram(registry, catalogue.AGENT_RTT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryMetrics:
    """Tunnels and leases over their life."""

    tunnel_opens: Counter
    tunnel_closes: Counter
    tunnel_duration: Histogram
    leases_ended: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> Self:
        """Register and return the group."""
        return cls(
            tunnel_opens=_counter(registry, catalogue.TUNNEL_OPENS),
            tunnel_closes=_counter(registry, catalogue.TUNNEL_CLOSES),
            tunnel_duration=_histogram(registry, catalogue.TUNNEL_DURATION),
            leases_ended=_counter(registry, catalogue.LEASES_ENDED),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiMetrics:
    """REST calls."""

    requests: Counter
    duration: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> Self:
        """Register and return the group."""
        return cls(
            requests=_counter(registry, catalogue.API_REQUESTS),
            duration=_histogram(registry, catalogue.API_DURATION),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMetrics:
    """The program and its event loop."""

    loop_lag: Gauge
    loop_lag_max: Gauge
    loop_lag_spread: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry, *, version: str, python: str) -> Self:
        """Register and return the group, and tell what runs."""
        build = _gauge(registry, catalogue.BUILD)
        build.labels(version=version, python=python).set(1)
        return cls(
            loop_lag=_gauge(registry, catalogue.LOOP_LAG),
            loop_lag_max=_gauge(registry, catalogue.LOOP_LAG_MAX),
            loop_lag_spread=_histogram(registry, catalogue.LOOP_LAG_SPREAD),
        )


def _counter(registry: CollectorRegistry, row: Row) -> Counter:
    counter = Counter(row.name, row.meaning, list(row.labels), registry=registry)
    _expose_from_the_start(counter, row)
    return counter


def _gauge(registry: CollectorRegistry, row: Row) -> Gauge:
    return Gauge(row.name, row.meaning, list(row.labels), registry=registry)


def _histogram(registry: CollectorRegistry, row: Row) -> Histogram:
    histogram = Histogram(
        row.name, row.meaning, list(row.labels), buckets=row.buckets, registry=registry
    )
    _expose_from_the_start(histogram, row)
    return histogram


def _expose_from_the_start(instrument: Counter | Histogram, row: Row) -> None:
    """Make all series of known labels: `rate` needs the zero before the first event."""
    if row.labels and all(row.labels.values()):
        for values in product(*row.labels.values()):
            instrument.labels(*values)
