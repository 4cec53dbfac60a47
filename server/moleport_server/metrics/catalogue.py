"""Every metric of the server in one table: name, type, meaning, labels and buckets.

The instruments are made from these rows and the reference page is written from them, so neither
can say something that the other does not. Names follow Prometheus: base units, `_total` for
counters. Labels have few and bounded values, never host names, paths, addresses, ids or error
texts: whatever a stranger chooses would become a series that never goes away.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

PREFIX: Final = "moleport_server_"

REQUEST_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0,
)  # fmt: skip
"""From a local answer to a long poll that ends at the default response timeout."""
WAIT_SECONDS: Final = (0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
"""Up to the default lease."""
RTT_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LIFE_SECONDS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0)
"""Connections, tunnels and sessions: seconds to a week."""

CODE_CLASSES: Final = ("aborted", "1xx", "2xx", "3xx", "4xx", "5xx")
"""By `status // 100`; the first is a visitor that left before an answer began."""
PROTOCOLS: Final = ("http", "tcp")
DIRECTIONS: Final = ("to_agent", "to_visitor")

Labels = dict[str, tuple[str, ...]]


class Kind(StrEnum):
    """What a series means over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Row:
    """One metric."""

    kind: Kind
    name: str
    """As a scrape shows it, with `_total`."""
    meaning: str
    labels: Labels = field(default_factory=dict)
    """Label name to its values; all of them are exposed from the start. An empty tuple is a set
    that the code bounds but this table does not know: those series appear with their first use."""
    buckets: tuple[float, ...] = ()


def _counter(name: str, meaning: str, **labels: tuple[str, ...]) -> Row:
    return Row(Kind.COUNTER, PREFIX + name, meaning, labels)


def _gauge(name: str, meaning: str, **labels: tuple[str, ...]) -> Row:
    return Row(Kind.GAUGE, PREFIX + name, meaning, labels)


def _histogram(
    name: str, meaning: str, buckets: tuple[float, ...], **labels: tuple[str, ...]
) -> Row:
    return Row(Kind.HISTOGRAM, PREFIX + name, meaning, labels, buckets)


# The hot path: plain numbers of `counters`, exposed by `traffic`.
REQUESTS = _counter(
    "requests_total",
    "Requests that the edge answered, its own refusals included.",
    protocol=("http",),
    code=CODE_CLASSES,
)
REQUEST_DURATION = _histogram(
    "request_duration_seconds",
    "From the complete request head to the last byte of the answer.",
    REQUEST_SECONDS,
    protocol=("http",),
)
UPSTREAM_DURATION = _histogram(
    "upstream_duration_seconds",
    "From sending a request into the tunnel to the head of its answer.",
    REQUEST_SECONDS,
    protocol=("http",),
)
BYTES = _counter(
    "bytes_total",
    "Payload bytes that went through tunnels.",
    protocol=PROTOCOLS,
    direction=DIRECTIONS,
)

# The edge.
CONNECTIONS = _counter(
    "connections_total",
    "Visitor connections by what became of them.",
    listener=("edge-http", "edge-https", "tcp"),
    result=("accepted", "refused"),
)
CONNECTION_DURATION = _histogram(
    "connection_duration_seconds",
    "Life of visitor connections.",
    LIFE_SECONDS,
    protocol=PROTOCOLS,
)
REFUSALS = _counter(
    "refusals_total",
    "Answers made by the edge itself, by their `X-Moleport-Error` code.",
    reason=(),
)
RATE_LIMITED = _counter(
    "rate_limited_total",
    "What was refused for coming too fast, by the limit that refused it.",
    limit=(
        "login_failures",
        "password_failures",
        "requests",
        "address_requests",
        "before_auth",
        "token_requests",
    ),
)
POLICY_DENIED = _counter(
    "policy_denied_total",
    "Visitors turned away by the rules of a tunnel.",
    rule=("address", "basic_auth", "tls", "http_denied"),
)
STREAM_ERRORS = _counter(
    "stream_errors_total",
    "Streams that ended by a reset, by its reason.",
    reason=(
        "refused", "cancel", "calm_down", "idle_timeout", "takeover", "session_lost", "protocol",
        "other",
    ),
)  # fmt: skip
CREDIT_STALL = _counter(
    "credit_stall_seconds_total",
    "Time that streams could not send because the receiver had granted no credit.",
    direction=DIRECTIONS,
)
HELD = _counter(
    "held_total",
    "Requests and connections that waited for an absent agent, by how the wait ended.",
    protocol=PROTOCOLS,
    result=("served", "expired", "abandoned", "refused"),
)
HOLD_DURATION = _histogram(
    "hold_duration_seconds", "How long visitors waited for an absent agent.", WAIT_SECONDS
)
RETRIES = _counter(
    "request_retries_total", "Requests sent again because their stream died before an answer."
)
TLS_FAILURES = _counter(
    "tls_handshake_failures_total",
    "TLS handshakes that did not complete.",
    listener=("edge-https", "control", "api"),
)

# Agents.
AUTH_ATTEMPTS = _counter(
    "auth_attempts_total",
    "Credentials that were checked, by who gave them and the result.",
    kind=("agent", "api", "visitor"),
    result=("accepted", "rejected", "limited", "failed"),
)
SESSIONS_OPENED = _counter(
    "sessions_opened_total",
    "Agent sessions that began or came back.",
    result=("new", "resumed"),
)
SESSIONS_CLOSED = _counter(
    "sessions_closed_total",
    "Agent sessions that ended.",
    reason=("goodbye", "lost", "revoked", "replaced", "idle", "closed", "drained", "protocol"),
)
AGENT_RTT = _histogram(
    "agent_rtt_seconds", "Round trips to agents, measured by keepalives.", RTT_SECONDS
)

# The registry.
TUNNEL_OPENS = _counter(
    "tunnel_opens_total",
    "Attempts to open a tunnel.",
    protocol=PROTOCOLS,
    result=("opened", "resumed", "invalid", "forbidden", "taken", "limited", "failed"),
)
TUNNEL_CLOSES = _counter(
    "tunnel_closes_total",
    "Tunnels that ended.",
    protocol=PROTOCOLS,
    reason=("unbound", "lease_over", "deleted", "revoked"),
)
TUNNEL_DURATION = _histogram(
    "tunnel_duration_seconds",
    "Life of tunnels, times of absence included.",
    LIFE_SECONDS,
    protocol=PROTOCOLS,
)
LEASES_ENDED = _counter(
    "leases_ended_total",
    "Leases of absent agents, by how they ended.",
    result=("resumed", "expired", "released"),
)

# Capture: counted by its owners, read at scrape time by `live`.
CAPTURES = _counter("captures_total", "Requests that were captured in memory.")
CAPTURES_WRITTEN = _counter("captures_written_total", "Captures that reached the database.")
CAPTURES_DROPPED = _counter(
    "captures_dropped_total",
    "Captures that never reached the database.",
    reason=("queue_full", "store_full", "store_error", "closing"),
)

# The REST API.
API_REQUESTS = _counter(
    "api_requests_total",
    "REST calls by the pattern of their route, never by path.",
    route=(),
    method=(),
    code=(),
)
API_DURATION = _histogram(
    "api_request_duration_seconds",
    "REST calls; event streams are left out.",
    REQUEST_SECONDS,
    route=(),
)

# The process.
BUILD = _gauge("build_info", "Always 1; the labels tell what runs.", version=(), python=())
LOOP_LAG = _gauge("event_loop_lag_seconds", "How late the event loop ran its last probe.")
LOOP_LAG_MAX = _gauge(
    "event_loop_lag_max_seconds", "The worst lag of the last half to whole minute."
)
LOOP_LAG_SPREAD = _histogram(
    "event_loop_lag_distribution_seconds", "How late the event loop ran its probes.", LAG_SECONDS
)

# Read at scrape time by `live`.
AGENTS_CONNECTED = _gauge("agents_connected", "Sessions with a live agent.")
TUNNELS_ACTIVE = _gauge("tunnels_active", "Tunnels whose agent is connected.", protocol=PROTOCOLS)
LEASES = _gauge("leases", "Tunnels kept for absent agents.", protocol=PROTOCOLS)
HELD_NOW = _gauge("held_requests", "Requests and connections that wait for an absent agent now.")
CONNECTIONS_ACTIVE = _gauge(
    "connections_active", "Visitor connections that are open now.", protocol=PROTOCOLS
)
UNAUTHENTICATED = _gauge(
    "unauthenticated_connections", "Agent connections that have not authenticated yet."
)
DESCRIPTORS = _gauge(
    "descriptors_available", "Connections that may still be accepted before visitors get 503."
)
STREAMS = _gauge("streams_open", "Streams that are open in all sessions.")
STREAMS_STALLED = _gauge("streams_stalled", "Open streams that wait for credit now.")
RECEIVE_BUFFER = _gauge("receive_buffer_bytes", "Bytes held for visitors who do not keep up.")
SEND_BUFFER = _gauge("send_buffer_bytes", "Bytes that wait to be written to agents.")
CAPTURE_BYTES = _gauge("capture_bytes", "Memory that captures use.")
CAPTURE_QUEUE = _gauge("capture_queue_bytes", "Captures that wait for the database.")
CERTIFICATES = _gauge(
    "tls_certificate_expiration_timestamp_seconds",
    "When a certificate ends, by its place in the settings.",
    certificate=(),
)
DRAINING = _gauge("draining", "1 while the server shuts down.")

# The names that dashboards of rustunnel read.
RUSTUNNEL_SESSIONS = Row(
    Kind.GAUGE, "rustunnel_active_sessions", "As `moleport_server_agents_connected`."
)
RUSTUNNEL_HTTP = Row(
    Kind.GAUGE, "rustunnel_active_tunnels_http", "As `moleport_server_tunnels_active` of HTTP."
)
RUSTUNNEL_TCP = Row(
    Kind.GAUGE, "rustunnel_active_tunnels_tcp", "As `moleport_server_tunnels_active` of TCP."
)

CATALOGUE: Final = tuple(value for value in list(globals().values()) if isinstance(value, Row))
"""All rows, in the order of this page."""
