"""How a hoody-tunnel driver breaks the rules, for tests of what the kit does then."""

import asyncio
from typing import Any
from uuid import uuid4

from helpers.doubles.events import say
from helpers.doubles.hoody_frames import (
    HEADER,
    MAX_FRAMES,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    V1,
    Frame,
    Type,
    json_frame,
    late_frames,
    reset,
    window,
)
from helpers.doubles.hoody_hello import Refused
from helpers.doubles.hoody_session import Session
from helpers.doubles.link import ConnectError

RESPONSES = (
    "data-before-head",
    "eof-before-head",
    "second-head",
    "never-head",
    "bad-json",
    "bad-header",
    "bad-headers",
    "status-0",
    "status-99",
    "status-600",
    "status-text",
    "reset-before-head",
    "reset-in-body",
    "vanish-in-body",
    "overrun-stream",
    "overrun-session",
    "oversize-data",
)
OVERRUN_FRAMES = 400


class Response:
    """What is wrong with every answer of this driver; without a kind, nothing."""

    def __init__(self, kind: str | None = None) -> None:
        self._kind = kind
        self._second_was_sent = False

    def spoil(
        self, fields: dict[str, Any], stream_id: int
    ) -> tuple[list[Frame], dict[str, Any] | None]:
        """Return what to send before the head, and the head or None for no head."""
        match self._kind:
            case "data-before-head":
                return [Frame(Type.DATA, stream_id, b"too early")], fields
            case "eof-before-head":
                return [Frame(Type.EOF, stream_id)], None
            case "second-head":
                return [json_frame(Type.STREAM_RESPONSE_HEAD, fields, stream_id)], fields
            case "never-head":
                return [], None
            case "bad-json":
                return [Frame(Type.STREAM_RESPONSE_HEAD, stream_id, b'{"status":')], None
            case "bad-header":
                return [], {**fields, "headers": [["x bad", "a\r\nInjected: yes"]]}
            case "bad-headers":
                return [], {**fields, "headers": {"content-type": "text/plain"}}
            case "status-text":
                return [], {**fields, "status": "200"}
            case "reset-before-head":
                return [reset(stream_id, 6, "because")], None
        if self._kind is not None and self._kind.startswith("status-"):
            return [], {**fields, "status": int(self._kind.removeprefix("status-"))}
        return [], fields

    async def before_data(self, session: Session, stream_id: int) -> None:
        """Do what goes wrong once the head is out."""
        match self._kind:
            case "reset-in-body":
                session.send_on_stream(Frame(Type.DATA, stream_id, b"half"))
                session.send_on_stream(reset(stream_id, 6, "half way"))
            case "vanish-in-body":
                session.sockets.flush()
                session.sockets.drop()
            case "overrun-stream" | "overrun-session":
                for _ in range(OVERRUN_FRAMES):
                    session.send_on_stream(Frame(Type.DATA, stream_id, bytes(MAX_PAYLOAD_BYTES)))
            case "oversize-data":
                session.send_on_stream(Frame(Type.DATA, stream_id, bytes(MAX_PAYLOAD_BYTES + 1)))
            case _:
                return
        await asyncio.get_running_loop().create_future()  # nothing more of this answer


MESSAGES: dict[str, bytes] = {
    "empty-message": b"",
    "frames-65": Frame(Type.PONG, 0, bytes(8)).encode() * (MAX_FRAMES + 1),
    "oversize-message": Frame(0x50, 0, bytes(MAX_PAYLOAD_BYTES)).encode() * 4,
    "oversize-frame": Frame(0x50, 0, bytes(MAX_PAYLOAD_BYTES + 1)).encode(),
    "huge-message": bytes(8 * MAX_MESSAGE_BYTES),
    "short-header": bytes(5),
    "truncated": HEADER.pack(Type.PONG, 0, 8) + b"\0",
    "endless-length": HEADER.pack(Type.DATA, 2, 2**32 - 1),
    "type-high": Frame(0x80, 0).encode(),
    "type-gap": Frame(0x11, 0).encode(),
    "type-optional": Frame(0x7F, 0, b"skip me").encode(),
    "window-zero": window(0, 0).encode(),
    "window-short": Frame(Type.WINDOW, 0, b"\0\1").encode(),
    "window-long": Frame(Type.WINDOW, 0, bytes(5)).encode(),
    "window-over": window(0, 2**32 - 1).encode(),
    "pong-unknown": Frame(Type.PONG, 0, b"whatever").encode(),
    "goaway": json_frame(Type.GOAWAY, {"code": 0, "message": "bye"}).encode(),
    "goaway-bad": Frame(Type.GOAWAY, 0, b"{").encode(),
    "data-on-zero": Frame(Type.DATA, 0, b"x").encode(),
    "never-allocated": Frame(Type.DATA, 2**31, b"x").encode(),
    "head-never-allocated": json_frame(
        Type.STREAM_RESPONSE_HEAD, {"status": 200, "headers": [], "final": True}, 2**31
    ).encode(),
    "short-reset": Frame(Type.RESET, 2, b"\0").encode(),
    "stream-open": json_frame(Type.STREAM_OPEN, {"kind": "http"}, 2**30).encode(),
    "hello-ok": json_frame(Type.HELLO_OK, {"sessionId": "mine"}).encode(),
    "bind-bad-json": Frame(Type.BIND, 0, b"{").encode(),
    "bind-without-ref": json_frame(Type.BIND, {"kind": "http", "mode": "expose"}).encode(),
    "bind-deep-json": Frame(Type.BIND, 0, b"[" * 60_000).encode(),
    "unbind-foreign": json_frame(Type.UNBIND, {"bindId": 987_654}).encode(),
    "unbind-bad": json_frame(Type.UNBIND, {"bindId": "x"}).encode(),
    "ping": Frame(Type.PING, 0, bytes(8)).encode(),
}
"""Messages that need nothing but a session."""

FIRST_MESSAGES: dict[str, tuple[bytes, bool]] = {
    "text": (b"hello", True),
    "garbage": (b"\x01\x02\x03", False),
    "not-hello": (Frame(Type.PONG, 0, bytes(8)).encode(), False),
    "bad-json": (Frame(Type.HELLO, 0, b"{").encode(), False),
    "list-json": (json_frame(Type.HELLO, []).encode(), False),
    "other-version": (
        json_frame(Type.HELLO, {"version": "hoody-tunnel.v9", "capabilities": []}).encode(),
        False,
    ),
    "join": (json_frame(Type.JOIN, {"sessionId": "x", "index": 1, "nonce": "x"}).encode(), False),
    "two-frames": (
        json_frame(Type.HELLO, {"version": V1, "capabilities": []}).encode() * 2,
        False,
    ),
}
"""What comes instead of HELLO; `silence` is the other one."""


async def misbehave(session: Session, kind: str, index: int = 0) -> None:
    """Break one rule on a socket of a running session."""
    sockets = session.sockets
    if kind in MESSAGES:
        sockets.send_raw(MESSAGES[kind], index)
        return
    match kind:
        case "text":
            sockets.send_raw(b"text", index, text=True)
        case "second-hello":
            sockets.send_alone(json_frame(Type.HELLO, session.hello_fields()), index)
        case "join-attached":
            fields = {"sessionId": session.session_id, "index": 1, "nonce": "x"}
            sockets.send_alone(json_frame(Type.JOIN, fields), index)
        case "late":
            for frame in late_frames(session.last_closed):
                sockets.send_alone(frame, index)
        case "overrun-closed":
            for _ in range(OVERRUN_FRAMES):
                sockets.send_alone(Frame(Type.DATA, session.last_closed, bytes(65_536)), index)
        case "websocket-noise":
            sockets.links[index].raw_nowait(bytes(64))
        case _:
            raise ValueError(kind)


async def join_again(session: Session, kind: str) -> None:
    """Open one more socket with a ticket that is no good, and say the answer."""
    ticket: dict[str, Any] = {"index": 1, "nonce": str(uuid4())}
    if session.tickets:
        ticket = dict(session.tickets[0])
    match kind:
        case "used":
            pass
        case "nonce":
            ticket["nonce"] = str(uuid4())
        case "index":
            ticket["index"] = 99
        case _:
            raise ValueError(kind)
    try:
        await (await session.join_one(ticket))
        say("joined", kind=kind)
    except (Refused, ConnectError) as error:
        say("join_failed", kind=kind, text=str(error))
