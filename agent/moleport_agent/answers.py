"""What the server answers, as far as the commands show it: the shapes behind `--json`.

Unknown keys are ignored, so that a newer server does not break an older command; the keys here are
the ones that scripts may rely on. Times are RFC 3339 in UTC, as the server writes them.
"""

from typing import Any

import msgspec


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/status`."""

    ok: bool
    active_sessions: int
    active_tunnels: int


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/server`, the part that people look at."""

    version: str = ""
    domains: list[str] = msgspec.field(default_factory=list)


class TunnelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tunnel, live or waiting for its agent."""

    tunnel_id: str
    protocol: str
    label: str
    """The full host name, or the port as text."""
    public_url: str
    connected_since: str
    request_count: int
    client_addr: str


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One captured request; the bodies are there in the answer of a replay only."""

    id: str
    tunnel_id: str
    method: str
    path: str
    status: int
    request_bytes: int
    response_bytes: int
    duration_ms: float
    captured_at: str
    request_body: str | None = None
    response_body: str | None = None


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """One token, without its secret."""

    id: str
    label: str
    scope: str | None
    created_at: str
    last_used_at: str | None
    tunnel_count: int


class CreatedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A new token with its secret, which shows only this once."""

    id: str
    label: str
    token: str

    def __repr__(self) -> str:
        return f"CreatedToken(id={self.id!r}, label={self.label!r})"


class ServerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One live event of `GET /api/events`."""

    id: str | None
    kind: str
    """`request.finished`, `tunnel.opened` and so on."""
    fields: dict[str, Any]
