"""The JSON messages of rustunnel's control channel: one object per binary WebSocket message.

Each message is a frozen record whose fields are the keys of the object, its kind stands under `type`.
`decode` takes what clients of 0.3.6 to 0.8.x send: unknown keys are ignored, an optional value may be
null or absent, keys come in any order. What we send is spelled as that family's server spells it, null
included.

Who may send which message when, and what follows from a wrong one, is for the session to decide. Peer
to peer is known only as far as it takes to decline it. The data channel is yamux
(`moleport_wire.yamux`); each of its streams starts with the 16 bytes of a `conn_id`.
"""

import re
from typing import Annotated, Final
from uuid import UUID

from msgspec import DecodeError, Meta, Struct, ValidationError, field
from msgspec.json import Decoder, Encoder

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.frames import Code, Payload

CONTROL_PATH: Final = "/_control"
DATA_PATH: Final = "/_data/"
"""Followed by the session id."""
CONN_ID_BYTES: Final = 16

Text = Annotated[str, Meta(max_length=1024)]
"""Longer ones are an attack or a bug."""
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Timestamp = Annotated[int, Meta(ge=0)]
"""Milliseconds since 1970 by the clock of who sent the ping; the family knows 64 bits."""

_RELEASE: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+].*)?", re.ASCII | re.DOTALL)


class MalformedMessage(RemoteProtocolError):
    """A message that cannot be read.

    Attributes:
        kind: its `type`, empty if that could not be read either.
        request_id: what it asked an answer for, None if nothing: a client that hears nothing gives up
            after ten seconds, and asks again for ever.
    """

    def __init__(self, reason: str, kind: str = "", request_id: str | None = None) -> None:
        super().__init__(Code.PROTOCOL_ERROR, reason)
        self.kind = kind
        self.request_id = request_id


class UnknownMessage(MalformedMessage):
    """A message of a kind that we do not know; newer clients may send such."""


class Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Root of all messages."""

    def encode(self) -> bytes:
        """Return the payload of the WebSocket message."""
        return _encoder.encode(self)


class Auth(Message, frozen=True, kw_only=True, tag="auth"):
    """Client: who I am; its first message."""

    token: Text
    """Empty if none is configured."""
    client_version: Text

    def __repr__(self) -> str:
        return f"Auth(client_version={self.client_version!r})"


class AuthOk(Message, frozen=True, kw_only=True, tag="auth_ok"):
    """Server: you are in."""

    session_id: UUID
    """Also the only credential of the data channel."""
    server_version: str
    """Clients since 0.7.0 form groups and send health messages if this is 0.7.0 or later."""

    def __repr__(self) -> str:
        return f"AuthOk(server_version={self.server_version!r})"


class AuthError(Message, frozen=True, kw_only=True, tag="auth_error"):
    """Server: you are not; every client gives up on it."""

    message: str


class HealthCheck(Struct, frozen=True, kw_only=True):
    """How a client since 0.7 probes its local service."""

    kind: Text
    """`tcp` or `http`."""
    interval_seconds: Count = field(default=10, name="interval_secs")
    timeout_seconds: Count = field(default=3, name="timeout_secs")
    max_failed: Count = 3
    http_path: Text | None = None
    expects_2xx: bool = field(default=True, name="http_expect_2xx")
    alert_webhook_url: Text | None = None
    """May hold a secret of the webhook's receiver."""

    def __repr__(self) -> str:
        return f"HealthCheck(kind={self.kind!r}, http_path={self.http_path!r})"


class RegisterTunnel(Message, frozen=True, kw_only=True, tag="register_tunnel"):
    """Client: give my service an address."""

    request_id: Text
    """To be echoed in the answer."""
    protocol: Text
    """`http`, `https` or `tcp`; since 0.5 also `udp` and `p2p`."""
    subdomain: Text | None = None
    local_addr: Text
    """Where the service is, for people."""
    group: Text | None = None
    group_key_hash: Text | None = None
    """SHA-256 of the key that the members of a group share, in hex."""
    health_check: HealthCheck | None = None

    def __repr__(self) -> str:
        return f"RegisterTunnel(protocol={self.protocol!r}, subdomain={self.subdomain!r})"


class TunnelRegistered(Message, frozen=True, kw_only=True, tag="tunnel_registered"):
    """Server: here is the address."""

    request_id: str
    tunnel_id: UUID
    public_url: str
    assigned_port: Annotated[int, Meta(ge=0, le=2**16 - 1)] | None = None
    """TCP tunnels only."""


class TunnelError(Message, frozen=True, kw_only=True, tag="tunnel_error"):
    """Server: no address, and why; retried by clients up to 0.8.0, final for later ones."""

    request_id: str
    message: str


class UnregisterTunnel(Message, frozen=True, kw_only=True, tag="unregister_tunnel"):
    """Client: take the address back; there is no answer, and the stock client never sends it."""

    tunnel_id: UUID


class NewConnection(Message, frozen=True, kw_only=True, tag="new_connection"):
    """Server: the data stream that starts with this id is for a service of that protocol."""

    conn_id: UUID
    client_addr: str
    """The visitor as `ip:port`, IPv6 in brackets."""
    protocol: str
    """`http`, also for tunnels that asked for https, or `tcp`."""


class DataStreamOpen(Message, frozen=True, kw_only=True, tag="data_stream_open"):
    """Client: defined by the family and sent by no client; to be ignored."""

    conn_id: UUID


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Either: are you there?"""

    timestamp: Timestamp


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """Either: I am."""

    timestamp: Timestamp
    """That of the ping."""


class TunnelHealthy(Message, frozen=True, kw_only=True, tag="tunnel_healthy"):
    """Client, since 0.7: the local service answers, for the first time or again."""

    tunnel_id: UUID


class TunnelUnhealthy(Message, frozen=True, kw_only=True, tag="tunnel_unhealthy"):
    """Client, since 0.7: the local service does not answer."""

    tunnel_id: UUID
    reason: Text


class P2pConnect(Message, frozen=True, kw_only=True, tag="p2p_connect"):
    """Client, since 0.5: join me with another client; declined with `P2pError`."""

    request_id: Text
    target_tunnel_name: Text
    secret_hash: Text

    def __repr__(self) -> str:
        return f"P2pConnect(target_tunnel_name={self.target_tunnel_name!r})"


class P2pError(Message, frozen=True, kw_only=True, tag="p2p_error"):
    """Server: you are not joined, and why."""

    request_id: str
    message: str


class _Asked(Struct):
    """What can be read of a message that cannot."""

    kind: Text = field(name="type")
    request_id: Text | None = None


_Known = (
    Auth | AuthOk | AuthError | RegisterTunnel | TunnelRegistered | TunnelError | UnregisterTunnel
    | NewConnection | DataStreamOpen | Ping | Pong | TunnelHealthy | TunnelUnhealthy | P2pConnect
    | P2pError
)  # fmt: skip
KINDS: Final = frozenset(kind.__struct_config__.tag for kind in _Known.__args__)
"""The values of `type` that `decode` knows."""
_encoder: Final = Encoder()
_decoder: Final[Decoder[Message]] = Decoder(_Known)
_asked_decoder: Final = Decoder(_Asked)
# UnicodeDecodeError is a ValueError, a text that is half of a surrogate pair is one of these too.
_FAULTS: Final = (DecodeError, ValidationError, ValueError, RecursionError)


def decode(payload: Payload) -> Message:
    """Read a message of either side.

    Raises:
        UnknownMessage: it is of a kind that we do not know.
        MalformedMessage: it is no JSON object with the keys of its kind.
    """
    try:
        return _decoder.decode(payload)
    except _FAULTS as error:
        try:
            asked = _asked_decoder.decode(payload)
        except _FAULTS:
            raise MalformedMessage("not a message") from error
        fault = MalformedMessage if asked.kind in KINDS else UnknownMessage
        raise fault(str(error), asked.kind, asked.request_id) from error


def parse_release(version: str) -> tuple[int, int, int] | None:
    """Return the three numbers of a version; None if it has not that form, which counts as old."""
    match = _RELEASE.fullmatch(version)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))
