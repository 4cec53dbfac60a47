"""How a rustunnel client breaks the rules, for tests of what the server does then."""

import random
import secrets
from uuid import uuid4

from helpers.doubles.link import Link
from helpers.doubles.naive_yamux import (
    ACK,
    DATA,
    GO_AWAY,
    MAX_BODY_IN,
    MAX_BODY_OUT,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
)
from helpers.doubles.rustunnel_frames import encode
from helpers.doubles.rustunnel_session import Session


def _send(control: Link, kind: str, **fields: object) -> None:
    control.send_nowait(encode(kind, **fields))


def misbehave_on_control(session: Session, kind: str, size: int = 0) -> None:
    """Send what a server has to ignore, or to end the session over."""
    control = session.control
    match kind:
        case "text":
            control.send_nowait(b'{"type":"ping","timestamp":1}', text=True)
        case "malformed":
            control.send_nowait(b'{"type":"ping",')
        case "unknown":
            _send(control, "frobnicate", value=1)
        case "empty":
            control.send_nowait(b"")
        case "second-auth":
            _send(control, "auth", token=session.token, client_version=str(session.release))
        case "server-frames":
            _send(control, "auth_ok", session_id=str(uuid4()), server_version="1.0.0")
            _send(control, "tunnel_error", request_id="x", message="x")
            _send(control, "new_connection", conn_id=str(uuid4()), client_addr="", protocol="http")
        case "stream-open":
            _send(control, "data_stream_open", conn_id=str(uuid4()))
        case "bad-ping":
            control.send_nowait(b'{"type":"ping","timestamp":-1}')
            control.send_nowait(b'{"type":"ping","timestamp":1.5}')
            control.send_nowait(b'{"type":"ping","timestamp":"1"}')
        case "unregister-foreign":
            _send(control, "unregister_tunnel", tunnel_id=str(uuid4()))
        case "unregister":
            _send(control, "unregister_tunnel", tunnel_id=session.tunnel_ids[0])
        case "deep":
            control.send_nowait(b"[" * 100_000)
        case "huge":
            _send(control, "ping", timestamp=1, padding="x" * size)
        case "noise":
            control.raw_nowait(secrets.token_bytes(max(size, 64)))
        case _:
            raise ValueError(kind)


def misbehave_on_data(session: Session, kind: str) -> None:
    """Break yamux, or the WebSocket that carries it."""
    assert session.data is not None
    link, yamux = session.data.link, session.data.yamux
    open_ids = list(yamux.streams)
    match kind:
        case "drop":
            link.abort()
        case "close":
            link.close_nowait()
        case "noise":
            link.send_nowait(random.randbytes(1_000))
        case "version":
            link.send_nowait(bytes([1, *bytes(11)]))
        case "type":
            link.send_nowait(bytes([0, 9, *bytes(10)]))
        case "goaway":
            yamux.send(GO_AWAY, 0, 0, 0)
        case "unasked-pong":
            yamux.send(PING, ACK, 0, 77)
        case "even-stream":
            yamux.send(DATA, SYN, 2, 0)
        case "even-flood":
            for number in range(20_000):
                yamux.send(DATA, SYN, 4_000 + 2 * number, MAX_BODY_OUT)
                yamux.emit(bytes(MAX_BODY_OUT))
        case "odd-stream":
            yamux.send(DATA, SYN, 4_001, 0)
        case "unknown-stream":
            yamux.send(DATA, 0, 4_003, 5)
            yamux.emit(b"lost?")
            yamux.send(WINDOW_UPDATE, 0, 4_003, 100)
            yamux.send(DATA, RST, 4_003, 0)
        case "overrun":
            for _ in range(40):
                yamux.send(DATA, 0, open_ids[0], MAX_BODY_IN)
                yamux.emit(bytes(MAX_BODY_IN))
        case "credit-overflow":
            yamux.send(WINDOW_UPDATE, 0, open_ids[0], 2**32 - 1)
            yamux.send(WINDOW_UPDATE, 0, open_ids[0], 2**32 - 1)
        case "huge-body":
            yamux.send(DATA, 0, open_ids[0], 2**31)
        case "text":
            link.send_nowait(b"text is not yamux", text=True)
        case "empty":
            link.send_nowait(b"")
        case "half-frame":
            link.send_nowait(bytes(7))
        case "reset-streams":
            for stream in list(yamux.streams.values()):
                stream.reset()
        case "ping-flood":
            for nonce in range(10_000):
                yamux.send(PING, SYN, 0, nonce)
        case _:
            raise ValueError(kind)
