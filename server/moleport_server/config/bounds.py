"""Settings that bound what strangers, agents and stored traffic may cost.

Each default is what one small pod (one core, 512 MiB) survives at its worst; the reason is below
each field. 0 means unlimited only where the field says so.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

KIB = 1024
MIB = 1024 * KIB

Count = Annotated[int, Meta(ge=1, le=10_000_000)]
CountOrZero = Annotated[int, Meta(ge=0, le=10_000_000)]
Size = Annotated[int, Meta(ge=1, le=1 << 50)]
SizeOrZero = Annotated[int, Meta(ge=0, le=1 << 50)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=31_536_000)]
Rate = Annotated[float, Meta(ge=0, le=10_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How much visitors and agents may use."""

    connections_per_address_before_auth: Count = 32
    """Connections of one address (IPv6: of one /64) that have not authenticated yet. One agent
    needs at most 16; more is a scan or an attack."""
    connections_before_auth: Count = 1024
    """The same over all addresses, so that many addresses cannot take all memory."""
    tls_handshake_seconds: Seconds = 10.0
    """Deadline of a TLS handshake, from the accepted connection on. A slow mobile link needs 2."""
    first_frame_seconds: Seconds = 5.0
    """Deadline of an agent's first message after the upgrade."""
    edge_connections: Count = 20_000
    """Connections of visitors, HTTP and TCP together. A TLS connection costs about 24 KiB."""
    descriptors: CountOrZero = 0
    """Connections of all kinds; above it visitors get 503 or a reset. 0: what the system lets the
    process open, less a reserve, so that it never runs out of file descriptors."""
    head_bytes: Annotated[int, Meta(ge=1024, le=MIB)] = 65_536
    """Size of a request's or an answer's head; above it 431, or 502 for an answer."""
    header_fields: Annotated[int, Meta(ge=10, le=10_000)] = 200
    """Header fields in one head; above it 431. Browsers send about 30."""
    header_read_seconds: Seconds = 30.0
    """Deadline of a request's head, from its first byte on, against visitors that send it in
    drops."""
    idle_seconds: Seconds = 75.0
    """How long a visitor's connection may stay between two requests. Above the 60 seconds of common
    load balancers, so that they close first and never meet a closed connection."""
    request_body_bytes: SizeOrZero = 0
    """Size of a request's body; above it 413. 0 is unlimited, because bodies are never kept."""
    requests_per_second: Rate = 0.0
    """Requests of one tunnel; above it 429. 0 is unlimited."""
    connections_per_tunnel: Count = 4096
    """Visitors' connections of one tunnel at the same time; above it 503 or a reset."""
    streams_per_session: Count = 10_000
    """Open streams of one agent; above it 503. Each costs about 2 KiB without its window."""
    tunnels_per_session: Count = 32
    """Tunnels of one agent."""
    sessions: Count = 4096
    """Agents of this server; more are told to try later."""
    response_head_seconds: Seconds = 600.0
    """Deadline of an answer's head; after it 504. Long, because long polls are normal."""
    ip_requests_per_second: Rate = 0.0
    """Requests of one visitor's address over all tunnels; above it 429. 0 is unlimited, because
    many visitors may share one address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    """How much may be under way inside of the server: flow control and its budget."""

    stream_window_bytes: Annotated[int, Meta(ge=16 * KIB, le=64 * MIB)] = 256 * KIB
    """First window of a stream: what a visitor that stops reading may cost."""
    session_window_bytes: Annotated[int, Meta(ge=256 * KIB, le=1024 * MIB)] = 16 * MIB
    """Window of one agent's session over all of its streams."""
    receive_budget_bytes: Annotated[int, Meta(ge=MIB, le=1 << 40)] = 256 * MIB
    """What all windows may add up to. At the budget windows stop to grow, new streams get 503 and
    the longest stalled stream is reset. Half of a 512 MiB pod."""
    stalled_stream_seconds: Seconds = 60.0
    """How long a stream may stall before it may be reset while the budget is used up."""
    write_buffer_bytes: Annotated[int, Meta(ge=16 * KIB, le=64 * MIB)] = 256 * KIB
    """What waits for one slow connection before its writers are paused: one message of a session at
    its largest, so that bulk data cannot delay small requests for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """What happens to names and requests while an agent is away."""

    lease_seconds: Seconds = 60.0
    """How long an absent agent keeps its names and ports: a reboot of a router, a rolling
    update."""
    per_tunnel: CountOrZero = 1024
    """Requests of one tunnel that wait for its agent; above it 503. 0 turns holding off."""
    total: CountOrZero = 10_000
    """Requests of all tunnels that wait for agents."""
    replay_bytes: Annotated[int, Meta(ge=0, le=16 * MIB)] = 16 * KIB
    """Size of a request's body that is kept until the answer begins, so that an idempotent request
    can be sent again to an agent that came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Which requests are kept to look at and to replay."""

    enabled: bool = True
    """Whether requests are captured at all."""
    requests_per_tunnel: Annotated[int, Meta(ge=1, le=100_000)] = 500
    """The newest requests of one tunnel that are kept in memory."""
    budget_bytes: Size = 64 * MIB
    """Memory of all captures; the oldest bodies go first."""
    tunnel_bytes: Size = 4 * MIB
    """Memory of one tunnel's captures, so that one busy tunnel cannot push out the others."""
    body_bytes: Annotated[int, Meta(ge=0, le=16 * MIB)] = 64 * KIB
    """How much of a body is kept; what is longer is cut and marked as cut."""
    persist: bool = True
    """Whether captures are also written to disk, with secrets masked, and survive a restart."""
    persist_bodies: bool = False
    """Whether bodies are written to disk as well. Off, because bodies hold personal data and cannot
    be masked."""
    database_bytes: Size = 256 * MIB
    """Size of the database of captures; the oldest go first."""
    queue_bytes: Size = 4 * MIB
    """Captures that wait for the disk; above it they are dropped and counted, never waited for."""
