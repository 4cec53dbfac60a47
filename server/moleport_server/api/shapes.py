"""What the API answers: field sets, names and key order of the seed API, then the extensions.

These structs are the contract: responses are encoded from them and the OpenAPI document is made
from them. Keys of the seed may get company, never change.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Count = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class RegionView(Struct, frozen=True, kw_only=True):
    """Where the server is, as `GET /api/status` tells it."""

    id: str
    name: str
    location: str


class StatusView(Struct, frozen=True, kw_only=True):
    """How the server is."""

    ok: bool
    region: RegionView
    active_sessions: Count
    active_tunnels: Count


class RegionRow(Struct, frozen=True, kw_only=True):
    """One region that agents may choose; there is one."""

    id: str
    name: str
    location: str
    host: str
    control_port: Port
    active: bool


class TunnelView(Struct, frozen=True, kw_only=True):
    """One tunnel."""

    tunnel_id: str
    protocol: Literal["http", "tcp"]
    label: Annotated[str, Meta(description="The full host name, or the port as text.")]
    public_url: str
    connected_since: Timestamp
    request_count: Count
    client_addr: Annotated[str, Meta(description="The agent's `ip:port`; empty while it is away.")]
    region_id: str


class CaptureView(Struct, frozen=True, kw_only=True):
    """One captured request; secrets in the path are masked."""

    id: str
    tunnel_id: str
    conn_id: str
    method: str
    path: str
    status: int
    request_bytes: Count
    response_bytes: Count
    duration_ms: Count
    captured_at: Timestamp
    request_body: str | None
    response_body: str | None


class TokenView(Struct, frozen=True, kw_only=True):
    """One token, without its secret."""

    id: str
    token_hash: Annotated[
        str, Meta(description="SHA-256 of the newest valid secret in hex; empty if there is none.")
    ]
    label: str
    created_at: Timestamp
    last_used_at: Timestamp | None
    scope: str | None
    tunnel_count: Count


class TokenRequest(Struct, frozen=True, kw_only=True):
    """What a new token should be."""

    label: Annotated[str, Meta(max_length=255)]
    scope: Annotated[str, Meta(max_length=16384)] | None = None


class CreatedTokenView(Struct, frozen=True, kw_only=True):
    """A new token with its secret, which shows only this once."""

    id: str
    label: str
    token: str

    def __repr__(self) -> str:
        return f"CreatedTokenView(id={self.id!r}, label={self.label!r})"


class HistoryEntryView(Struct, frozen=True, kw_only=True):
    """One tunnel of the history."""

    id: str
    tunnel_id: str
    protocol: str
    label: str
    session_id: str
    token_id: str | None
    token_label: str | None
    registered_at: Timestamp
    unregistered_at: Timestamp | None
    region_id: str | None


class HistoryView(Struct, frozen=True, kw_only=True):
    """A page of the history."""

    entries: list[HistoryEntryView]
    total: Annotated[int, Meta(ge=0, description="Rows that match, on all pages.")]


class PublicView(Struct, frozen=True, kw_only=True):
    """Where visitors and agents connect to; null is off."""

    http_port: Port | None
    https_port: Port | None
    control_port: Port
    tcp_host: str
    tcp_ports: Annotated[tuple[Port, Port] | None, Meta(description="First and last port.")]


class ServerView(Struct, frozen=True, kw_only=True):
    """Facts about this server."""

    instance_id: Annotated[str, Meta(description="New when the database is new.")]
    version: str
    domains: list[str]
    public: PublicView
    limits: Annotated[dict[str, float | None], Meta(description="null is unlimited.")]


class SessionView(Struct, frozen=True, kw_only=True):
    """One live session."""

    session_id: str
    protocol: str
    peer: Annotated[str, Meta(description="`ip:port` of the agent's first connection.")]
    agent: Annotated[str, Meta(description="What the agent says it is.")]
    token_id: Annotated[str | None, Meta(description="null: the admin.")]
    token_label: str | None
    connected_at: Timestamp
    connections: Count
    open_streams: Count
    tunnel_ids: list[str]
