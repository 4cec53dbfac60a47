"""Messages: the JSON of the control plane, decoded strictly and encoded compactly.

Each message is a frozen dataclass named after its frame. `decode` accepts whatever a correct peer sends
(unknown members are ignored, as the protocol demands) and raises `RemoteProtocolError` for anything
else. Members that only `moleport.1` knows are marked; stock clients never see them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.members import Members

SUBPROTOCOL_V1: Final = "hoody-tunnel.v1"
SUBPROTOCOL_V2: Final = "hoody-tunnel.v2"
VERSIONS: Final = f"{SUBPROTOCOL_V1}, {SUBPROTOCOL_V2}"
VERSIONS_HEADER: Final = "x-hoody-tunnel-versions"
"""What a server tells who offers none of them."""
CAPABILITY_MULTI: Final = "multi-ws"
CAPABILITY_MOLEPORT: Final = "moleport.1"

_encode_json: Callable[[Any], str] = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False
).encode


def encode(members: Mapping[str, Any]) -> bytes:
    """Return the payload for these members, leaving out those that are None."""
    return _encode_json({k: v for k, v in members.items() if v is not None}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of the primary, by the driver."""

    version: str
    token: str | None = field(default=None, repr=False)
    """`auth.token` of old clients; our agent authenticates the upgrade instead."""
    capabilities: tuple[str, ...] = ()
    max_connections: int = 1
    resume_session_id: str | None = None
    agent: str = ""
    """moleport.1: what the agent is, for people."""
    wants_reports: bool = False
    """moleport.1: send REPORT frames."""

    def encode(self) -> bytes:
        """Return the payload."""
        auth = None if self.token is None else {"kind": "bearer", "token": self.token}
        resume = None
        if self.resume_session_id is not None:
            resume = {"sessionId": self.resume_session_id}
        return encode(
            {
                "version": self.version,
                "auth": auth,
                "capabilities": list(self.capabilities),
                "maxConnections": self.max_connections if self.max_connections > 1 else None,
                "resume": resume,
                "agent": self.agent or None,
                "reports": self.wants_reports or None,
            }
        )

    @classmethod
    def decode(cls, payload: Payload) -> Hello:
        """Read a payload."""
        m = Members.parse("HELLO", payload)
        auth = m.object("auth")
        resume = m.object("resume")
        return cls(
            version=m.text("version"),
            token=None if auth is None else auth.optional_text("token"),
            capabilities=m.texts("capabilities", limit=32) or (),
            max_connections=m.optional_integer("maxConnections", low=1) or 1,
            resume_session_id=None if resume is None else resume.text("sessionId"),
            agent=m.optional_text("agent") or "",
            wants_reports=m.flag("reports"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTicket:
    """The right to attach one secondary connection, once."""

    index: int
    nonce: str = field(repr=False)
    expires_ms: int
    """Life time from the moment of HELLO_OK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedBind:
    """A binding that a resumed session still has."""

    bind_id: int
    kind: str
    mode: str
    container_port: int
    public_url: str | None = None
    """moleport.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloOk:
    """The kit's answer to HELLO: the session is live."""

    session_id: str
    resumed: bool = False
    resumed_binds: tuple[ResumedBind, ...] = ()
    stream_window: int
    session_window: int
    connections_granted: int = 1
    join_tickets: tuple[JoinTicket, ...] = ()
    capabilities: tuple[str, ...] = ()
    """moleport.1: what the kit accepted of the offered capabilities."""
    server: str = ""
    """moleport.1: what the server is, for people."""
    lease_seconds: int | None = None
    """moleport.1: how long bindings wait for an absent agent."""

    def encode(self) -> bytes:
        """Return the payload."""
        return encode(
            {
                "sessionId": self.session_id,
                "resumed": self.resumed,
                "resumedBinds": [
                    {
                        "bindId": b.bind_id,
                        "kind": b.kind,
                        "mode": b.mode,
                        "containerPort": b.container_port,
                    }
                    | ({} if b.public_url is None else {"publicUrl": b.public_url})
                    for b in self.resumed_binds
                ],
                "streamWindow": self.stream_window,
                "sessionWindow": self.session_window,
                "connectionsGranted": self.connections_granted,
                "joinTickets": [
                    {"index": t.index, "nonce": t.nonce, "expiresMs": t.expires_ms}
                    for t in self.join_tickets
                ],
                "capabilities": list(self.capabilities) or None,
                "server": self.server or None,
                "leaseSeconds": self.lease_seconds,
            }
        )

    @classmethod
    def decode(cls, payload: Payload) -> HelloOk:
        """Read a payload."""
        m = Members.parse("HELLO_OK", payload)
        return cls(
            session_id=m.text("sessionId"),
            resumed=m.flag("resumed"),
            resumed_binds=tuple(
                ResumedBind(
                    bind_id=b.integer("bindId"),
                    kind=b.text("kind"),
                    mode=b.text("mode"),
                    container_port=b.integer("containerPort", high=65535),
                    public_url=b.optional_text("publicUrl"),
                )
                for b in m.objects("resumedBinds") or ()
            ),
            stream_window=m.integer("streamWindow", low=1, high=2**31 - 1),
            session_window=m.integer("sessionWindow", low=1, high=2**31 - 1),
            connections_granted=m.optional_integer("connectionsGranted", low=1) or 1,
            join_tickets=tuple(
                JoinTicket(
                    index=t.integer("index", low=1, high=15),
                    nonce=t.text("nonce"),
                    expires_ms=t.integer("expiresMs"),
                )
                for t in m.objects("joinTickets", limit=15) or ()
            ),
            capabilities=m.texts("capabilities", limit=32) or (),
            server=m.optional_text("server") or "",
            lease_seconds=m.optional_integer("leaseSeconds"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """First message of a secondary."""

    session_id: str
    index: int
    nonce: str = field(repr=False)

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"sessionId": self.session_id, "index": self.index, "nonce": self.nonce})

    @classmethod
    def decode(cls, payload: Payload) -> Join:
        """Read a payload."""
        m = Members.parse("JOIN", payload)
        return cls(session_id=m.text("sessionId"), index=m.integer("index"), nonce=m.text("nonce"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """JOIN_ERR, REAUTH_ERR: a code for programs and a sentence for people."""

    code: str
    message: str

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"code": self.code, "message": self.message})

    @classmethod
    def decode(cls, payload: Payload) -> Refusal:
        """Read a payload."""
        m = Members.parse("refusal", payload)
        code = m.optional_text("code") or ""
        return cls(code=code, message=m.optional_text("message") or code)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicUser:
    """moleport.1: one user of HTTP basic authentication; only the hash crosses the wire."""

    user: str
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """The driver asks for an address."""

    client_bind_ref: int
    kind: str
    """`http` or `tcp`."""
    mode: str = "expose"
    """`expose` or `pull`."""
    container_port: int = 0
    label: str | None = None
    takeover: bool = False
    host: str | None = None
    hostname: str | None = None
    """moleport.1, http: the full host name."""
    subdomain: str | None = None
    """moleport.1, http: a label under the server's first domain."""
    is_wish: bool = False
    """moleport.1: the name or port is wished for; another one will do."""
    is_container: bool = False
    """moleport.1: `containerPort` is meant; stock drivers always mean it."""
    port: int | None = None
    """moleport.1, tcp: the public port."""
    basic_auth: tuple[BasicUser, ...] | None = None
    """moleport.1: None lets everybody in."""
    allowed_cidrs: tuple[str, ...] | None = None
    """moleport.1: None lets everybody in."""
    host_header: str | None = None
    """moleport.1, http: the Host header for the local service; None keeps the visitor's."""

    def encode(self) -> bytes:
        """Return the payload."""
        users = None
        if self.basic_auth is not None:
            users = [{"user": u.user, "hash": u.password_hash} for u in self.basic_auth]
        return encode(
            {
                "clientBindRef": self.client_bind_ref,
                "kind": self.kind,
                "mode": self.mode,
                "containerPort": self.container_port,
                "label": self.label,
                "takeover": self.takeover or None,
                "host": self.host,
                "hostname": self.hostname,
                "subdomain": self.subdomain,
                "wish": self.is_wish or None,
                "container": self.is_container or None,
                "port": self.port,
                "basicAuth": users,
                "allowedCidrs": None if self.allowed_cidrs is None else list(self.allowed_cidrs),
                "hostHeader": self.host_header,
            }
        )

    @classmethod
    def decode(cls, payload: Payload) -> Bind:
        """Read a payload."""
        m = Members.parse("BIND", payload)
        users = m.objects("basicAuth", limit=32)
        return cls(
            client_bind_ref=m.integer("clientBindRef"),
            kind=m.text("kind"),
            mode=m.text("mode"),
            container_port=m.integer("containerPort", high=65535),
            label=m.optional_text("label"),
            takeover=m.flag("takeover"),
            host=m.optional_text("host"),
            hostname=m.optional_text("hostname"),
            subdomain=m.optional_text("subdomain"),
            is_wish=m.flag("wish"),
            is_container=m.flag("container"),
            port=m.optional_integer("port", low=1, high=65535),
            basic_auth=None
            if users is None
            else tuple(BasicUser(user=u.text("user"), password_hash=u.text("hash")) for u in users),
            allowed_cidrs=m.texts("allowedCidrs"),
            host_header=m.optional_text("hostHeader"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOk:
    """The address was given."""

    client_bind_ref: int
    bind_id: int
    container_port: int = 0
    public_url: str | None = None
    tunnel_id: str | None = None
    """moleport.1: the id in the REST API."""

    def encode(self) -> bytes:
        """Return the payload; `publicUrl` is always there, null if there is none."""
        members: dict[str, Any] = {
            "clientBindRef": self.client_bind_ref,
            "bindId": self.bind_id,
            "containerPort": self.container_port,
            "publicUrl": self.public_url,
        }
        if self.tunnel_id is not None:
            members["tunnelId"] = self.tunnel_id
        return _encode_json(members).encode()

    @classmethod
    def decode(cls, payload: Payload) -> BindOk:
        """Read a payload."""
        m = Members.parse("BIND_OK", payload)
        return cls(
            client_bind_ref=m.integer("clientBindRef"),
            bind_id=m.integer("bindId"),
            container_port=m.integer("containerPort", high=65535),
            public_url=m.optional_text("publicUrl"),
            tunnel_id=m.optional_text("tunnelId"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BindErr:
    """The address was refused; the session goes on."""

    client_bind_ref: int
    code: str
    message: str
    is_final: bool = False
    """moleport.1: asking again is pointless."""

    def encode(self) -> bytes:
        """Return the payload."""
        return encode(
            {
                "clientBindRef": self.client_bind_ref,
                "code": self.code,
                "message": self.message,
                "final": self.is_final or None,
            }
        )

    @classmethod
    def decode(cls, payload: Payload) -> BindErr:
        """Read a payload."""
        m = Members.parse("BIND_ERR", payload)
        return cls(
            client_bind_ref=m.integer("clientBindRef"),
            code=m.text("code"),
            message=m.text("message"),
            is_final=m.flag("final"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbind:
    """UNBIND, UNBIND_OK: one binding by its id."""

    bind_id: int

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"bindId": self.bind_id})

    @classmethod
    def decode(cls, payload: Payload) -> Unbind:
        """Read a payload."""
        return cls(bind_id=Members.parse("UNBIND", payload).integer("bindId"))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbindErr:
    """The binding is not the caller's."""

    bind_id: int
    code: str
    message: str

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"bindId": self.bind_id, "code": self.code, "message": self.message})

    @classmethod
    def decode(cls, payload: Payload) -> UnbindErr:
        """Read a payload."""
        m = Members.parse("UNBIND_ERR", payload)
        return cls(bind_id=m.integer("bindId"), code=m.text("code"), message=m.text("message"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BindRevoked:
    """The kit took a binding away."""

    bind_id: int
    reason: str

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"bindId": self.bind_id, "reason": self.reason})

    @classmethod
    def decode(cls, payload: Payload) -> BindRevoked:
        """Read a payload."""
        m = Members.parse("BIND_REVOKED", payload)
        return cls(bind_id=m.integer("bindId"), reason=m.optional_text("reason") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpen:
    """moleport.1: STREAM_OPEN of a byte stream."""

    bind_id: int
    peer: str
    """The visitor, `ip:port` (IPv6 in brackets)."""
    window: int
    """What the driver may send before the first WINDOW."""

    def encode(self) -> bytes:
        """Return the payload; every value is safe to format by construction."""
        return b'{"kind":"bytes","bindId":%d,"peer":"%s","window":%d}' % (
            self.bind_id,
            self.peer.encode(),
            self.window,
        )

    @classmethod
    def decode(cls, payload: Payload) -> StreamOpen:
        """Read a payload."""
        m = Members.parse("STREAM_OPEN", payload)
        return cls(
            bind_id=m.integer("bindId"),
            peer=m.optional_text("peer") or "",
            window=m.integer("window", low=1, high=2**31 - 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAway:
    """The sender ends the session now; streams die. Draining comes before it."""

    code: int
    message: str = ""

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"code": self.code, "message": self.message})

    @classmethod
    def decode(cls, payload: Payload) -> GoAway:
        """Read a payload."""
        m = Members.parse("GOAWAY", payload)
        return cls(code=m.optional_integer("code") or 0, message=m.optional_text("message") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reauth:
    """moleport.1: the driver proves a new revision of its token on the live session."""

    token: str = field(repr=False)

    def encode(self) -> bytes:
        """Return the payload."""
        return encode({"token": self.token})

    @classmethod
    def decode(cls, payload: Payload) -> Reauth:
        """Read a payload."""
        return cls(token=Members.parse("REAUTH", payload).text("token"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """moleport.1: the kit ends the session at the deadline; connect elsewhere before."""

    deadline_ms: int
    reason: str = ""
    server: str | None = None
    """Where to connect next; None: the same address."""

    def encode(self) -> bytes:
        """Return the payload."""
        return encode(
            {"deadlineMs": self.deadline_ms, "reason": self.reason, "server": self.server}
        )

    @classmethod
    def decode(cls, payload: Payload) -> Drain:
        """Read a payload."""
        m = Members.parse("DRAIN", payload)
        return cls(
            deadline_ms=m.integer("deadlineMs"),
            reason=m.optional_text("reason") or "",
            server=m.optional_text("server"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRequest:
    """One visitor's request or connection, as the edge saw it."""

    bind_id: int
    method: str
    path: str
    status: int
    duration_ms: float
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """moleport.1: finished requests for the agent's live view, batched; never complete by promise."""

    requests: tuple[ReportedRequest, ...]
    skipped: int = 0
    """How many more there were."""

    def encode(self) -> bytes:
        """Return the payload."""
        rows = [
            [r.bind_id, r.method, r.path, r.status, round(r.duration_ms, 3), r.peer]
            for r in self.requests
        ]
        return encode({"requests": rows, "skipped": self.skipped or None})

    @classmethod
    def decode(cls, payload: Payload) -> Report:
        """Read a payload."""
        m = Members.parse("REPORT", payload)
        rows = m.rows("requests", (int, str, str, int, float, str))
        return cls(
            requests=tuple(
                ReportedRequest(
                    bind_id=bind_id,
                    method=method,
                    path=path,
                    status=status,
                    duration_ms=float(duration_ms),
                    peer=peer,
                )
                for bind_id, method, path, status, duration_ms, peer in rows
            ),
            skipped=m.optional_integer("skipped") or 0,
        )
