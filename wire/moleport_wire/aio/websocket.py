"""WebSocket transports by picows: the only module that knows the library.

picows parses and masks in C and calls back on the event loop without a task per message; measured on the
data path it costs a fraction of the stream-based libraries. Fragmented messages (a proxy may make them)
are joined here, bounded by the message limit of the protocol.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import picows

# The protocol class itself is exported for type checkers only in part; `ws_create_server` builds it
# the same way, but cannot take over a connection whose first request was read already.
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from python_socks import ProxyError

from moleport_wire.aio.quickacks import acknowledge_at_once
from moleport_wire.aio.resets import watch_for_reset
from moleport_wire.aio.socket_options import tune_socket
from moleport_wire.aio.sockets import format_peer, silence
from moleport_wire.aio.transport import MessageReceiver
from moleport_wire.errors import WireError
from moleport_wire.hoody.frames import MAX_MESSAGE_BYTES

CLOSE_SECONDS: Final = 1.0
"""How long a peer may take to answer a close frame, and then to take an orderly end of the connection."""
MAX_FRAME_BYTES: Final = MAX_MESSAGE_BYTES
READ_BUFFER_BYTES: Final = 2 * 1024
"""What an idle agent costs; the library doubles it for those that send more."""
DIVIDED_FROM_BYTES: Final = 16 * 1024
"""Messages below are handed on whole: they are many small frames, which nobody keeps for long."""

# A named child per connection at info level is the library's habit; ours are logged by the sessions.
_BINARY: Final = picows.WSMsgType.BINARY
_library_logger = logging.getLogger("picows.moleport")


class _Faults(logging.LoggerAdapter[logging.Logger]):
    """The log of one connection, in which the library tells a fault before it sends a close frame.

    It tells nobody else, and for some peers a close frame means to go for good.
    """

    def __init__(self) -> None:
        super().__init__(_library_logger, {})
        self.on_fault: Callable[[], None] | None = None

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Pass on; that a peer sends garbage is no error of ours."""
        if level >= logging.ERROR:
            if self.on_fault is not None:
                self.on_fault()
            if not kwargs.get("exc_info"):
                level = logging.INFO
        super().log(level, msg, *args, **kwargs)


class UpgradeRefused(WireError):
    """The server answered the upgrade with something else than 101."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}: {body}" if body else f"HTTP {status}")
        self.status = status
        self.body = body
        self.headers = headers


class WebSocketTransport(picows.WSListener):
    """One WebSocket connection as a message transport."""

    __slots__ = (
        "_close_timer",
        "_divide",
        "_drops_faults",
        "_forget_acks",
        "_fragments",
        "_is_abandoned",
        "_is_closing",
        "_on_text",
        "_quick_ack",
        "_receiver",
        "_ws",
        "awaits_pong",
        "peer",
    )

    def __init__(
        self,
        receiver: MessageReceiver,
        *,
        quick_ack: bool = False,
        drops_faults: bool = False,
        on_text: Callable[[], None] | None = None,
        divide: Callable[[memoryview], list[bytes]] | None = None,
    ) -> None:
        self._receiver = receiver
        self._divide = divide
        self._on_text = on_text
        self._quick_ack = quick_ack
        self._drops_faults = drops_faults
        self._forget_acks: Callable[[], None] | None = None
        self._ws: picows.WSTransport | None = None
        self._fragments: bytearray | None = None
        self._is_closing = False
        self._is_abandoned = False
        self._close_timer: asyncio.TimerHandle | None = None
        self.peer = ""
        self.awaits_pong = False

    # MessageTransport

    @property
    def buffered_bytes(self) -> int:
        """Bytes written but not yet taken by the kernel."""
        ws = self._ws
        return 0 if ws is None else int(ws.underlying_transport.get_write_buffer_size())

    def limit_buffer(self, limit_bytes: int) -> None:
        """Set the water marks of the connection."""
        if self._ws is not None:
            # asyncio pauses above its mark, the port at its limit.
            self._ws.underlying_transport.set_write_buffer_limits(
                high=limit_bytes - 1, low=limit_bytes // 4
            )

    def send(self, message: bytes) -> None:
        """Write one binary message; never blocks, ignored once closing."""
        ws = self._ws
        if ws is not None and not self._is_closing:
            ws.send(picows.WSMsgType.BINARY, message)

    def ping(self) -> None:
        """Send a WebSocket ping."""
        if self._ws is not None and not self._is_closing:
            self.awaits_pong = True
            self._ws.send_ping()

    def close(self, code: int, reason: str) -> None:
        """Write a close frame, end the connection when the peer answered or a second has passed."""
        ws = self._ws
        if ws is None or self._is_closing:
            return
        self._is_closing = True
        # A close frame takes 123 bytes of reason, whole characters only.
        text = reason.encode()[:123].decode("utf-8", "ignore").encode()
        ws.send_close(code, text)  # type: ignore[arg-type]  # takes any number
        # The peer answers with its own close frame and ends the connection; if it does not, we do.
        self._close_timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._close_socket)

    def _close_socket(self) -> None:
        """End in order a connection whose peer does not answer: it may read the close frame later.

        An end without TLS's goodbye would mean to some peers that they should come back.
        """
        self._close_timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)
        if self._ws is not None:
            self._ws.disconnect()

    def abort(self) -> None:
        """Drop the connection now."""
        self._is_closing = True
        if self._ws is not None:
            self._ws.underlying_transport.abort()

    def cut(self) -> None:
        """Drop the connection now, and keep the library from writing anything more to it."""
        if self._ws is not None:
            silence(self._ws.underlying_transport)
        self.abort()

    def abandon(self) -> None:
        """Drop the connection, also one whose handshake is still under way; nobody waits for it."""
        self._is_abandoned = True
        self.abort()

    # picows

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Start."""
        underlying = transport.underlying_transport
        if self._is_abandoned:
            underlying.abort()
            return
        if not transport.is_client_side:
            # The library keeps both heads as long as the connection: 3 KiB of each agent, in which
            # its credential is.
            transport.request.headers.clear()
            transport.response.headers.clear()
        self._ws = transport
        watch_for_reset(underlying)
        tune_socket(underlying)
        if self._quick_ack:
            self._forget_acks = acknowledge_at_once(underlying)
        self.peer = format_peer(underlying.get_extra_info("peername"))
        self._receiver.transport_opened(self)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Hand on binary messages; others are ignored, as the protocol demands."""
        kind = frame.msg_type
        if kind == _BINARY:
            if frame.fin:
                if self._divide is not None and frame.payload_size >= DIVIDED_FROM_BYTES:
                    for piece in self._divide(frame.get_payload_as_memoryview()):
                        self._receiver.message_received(piece)
                        if self._is_closing:
                            break  # the piece was against the rules; the rest is not heard either
                else:
                    self._receiver.message_received(frame.get_payload_as_bytes())
            else:
                self._fragments = bytearray(frame.get_payload_as_memoryview())
        elif kind == picows.WSMsgType.CONTINUATION:
            self._join(frame)
        elif kind == picows.WSMsgType.PONG:
            self.awaits_pong = False
        elif kind == picows.WSMsgType.TEXT:
            if self._on_text is not None:
                self._on_text()
        elif kind == picows.WSMsgType.CLOSE:
            if not self._is_closing:
                self._is_closing = True
                # The same payload back: code and reason, or none of both.
                transport.send(picows.WSMsgType.CLOSE, frame.get_payload_as_bytes()[:2])
            transport.disconnect()

    def _join(self, frame: picows.WSFrame) -> None:
        fragments = self._fragments
        if fragments is None:
            return  # a continuation of a text message, which is ignored
        if len(fragments) + frame.payload_size > MAX_MESSAGE_BYTES:
            self._fragments = None
            if self._drops_faults:
                self.cut()
            else:
                self.close(1009, "message too big")
            return
        fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            self._fragments = None
            self._receiver.message_received(bytes(fragments))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """End."""
        if self._ws is None:
            return  # abandoned before it was open
        if self._close_timer is not None:
            self._close_timer.cancel()
        if self._forget_acks is not None:
            self._forget_acks()
        self._ws = None
        received = transport.close_handshake.recv if transport.close_handshake else None
        if received is None:
            self._receiver.transport_lost(None, "connection lost")
            return
        code: Any = received.code  # an enum for known codes, a number for others
        self._receiver.transport_lost(int(code or 0) or 1005, received.reason or "")

    def pause_writing(self) -> None:
        """Pass on."""
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._receiver.resume_writing()


class Upgrade:
    """A client's upgrade request, for the side that decides about it."""

    def __init__(self, path: str, headers: Mapping[str, str]) -> None:
        self.path = path
        self.headers = headers
        """Case-insensitive."""

    @property
    def subprotocols(self) -> list[str]:
        """The offered subprotocols, in order."""
        offered = self.headers.get("sec-websocket-protocol", "")
        return [name.strip() for name in offered.split(",") if name.strip()]


class UpgradeAnswer:
    """What to answer: accept with a receiver, or refuse with a status and a JSON-ready sentence."""

    def __init__(
        self,
        *,
        receiver: MessageReceiver | None = None,
        subprotocol: str | None = None,
        status: int = 101,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        quick_ack: bool = False,
        drops_faults: bool = False,
        on_text: Callable[[], None] | None = None,
        divide: Callable[[memoryview], list[bytes]] | None = None,
    ) -> None:
        self.receiver = receiver
        self.subprotocol = subprotocol
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        self.quick_ack = quick_ack
        """Whether the peer leaves Nagle's algorithm on (see `aio.quickacks`)."""
        self.drops_faults = drops_faults
        """Whether a connection that breaks the rules is dropped without a close frame."""
        self.on_text = on_text
        """Called for each text message; all that becomes of one."""
        self.divide = divide
        """Copies a large message into several for the receiver, who may keep some of them for long."""

    @classmethod
    def refusal(
        cls, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> UpgradeAnswer:
        """Refuse with a status and a sentence."""
        return cls(status=status, body=json.dumps({"error": text}).encode(), headers=headers)


def server_protocol(
    decide: Callable[[Upgrade], UpgradeAnswer], *, handshake_seconds: float
) -> asyncio.BufferedProtocol:
    """Return a protocol that performs one server-side upgrade and then carries its messages.

    Attach it to an accepted connection (`set_protocol`, `connection_made`) and feed it what was read
    already with `feed`. `decide` is called once with the request.
    """
    faults = _Faults()

    def answer(request: Any) -> Any:
        decision = decide(Upgrade(request.path.decode("latin-1"), request.headers))
        if decision.receiver is None:
            headers = {"Content-Type": "application/json", **decision.headers}
            return picows.WSUpgradeResponseWithListener(
                picows.WSUpgradeResponse.create_error_response(
                    decision.status, decision.body, headers
                ),
                None,
            )
        if decision.subprotocol is not None:
            decision.headers["Sec-WebSocket-Protocol"] = decision.subprotocol
        transport = WebSocketTransport(
            decision.receiver,
            quick_ack=decision.quick_ack,
            drops_faults=decision.drops_faults,
            on_text=decision.on_text,
            divide=decision.divide,
        )
        if decision.drops_faults:
            faults.on_fault = transport.cut
        return picows.WSUpgradeResponseWithListener(
            picows.WSUpgradeResponse.create_101_response(decision.headers), transport
        )

    protocol: asyncio.BufferedProtocol = WSProtocol(
        None,
        None,
        False,  # noqa: FBT003 - the library takes these by position
        answer,
        faults,
        True,  # noqa: FBT003
        handshake_seconds,
        False,  # noqa: FBT003
        20,
        20,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        True,  # noqa: FBT003
        MAX_FRAME_BYTES,
        None,
        READ_BUFFER_BYTES,
    )
    return protocol


def feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give a buffered protocol bytes that somebody else read from its connection."""
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view)))
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]


async def connect(
    receiver: MessageReceiver,
    url: str,
    *,
    subprotocol: str,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None = None,
    proxy: str | None = None,
    timeout_seconds: float,
) -> None:
    """Open a client connection; `receiver.transport_opened` is called before this returns.

    Raises:
        UpgradeRefused: the server answered with another status, which it explains.
        OSError: no connection, the proxy refused, or the server does not speak the subprotocol.
        ssl.SSLError: TLS failed.
        TimeoutError: it took longer than `timeout_seconds`.

    Cancellation: the receiver hears nothing more; a handshake under way ends by its timeout.
    """
    transport = WebSocketTransport(receiver)
    options: dict[str, Any] = {}
    if server_hostname is not None:
        options["server_hostname"] = server_hostname
    try:
        async with asyncio.timeout(timeout_seconds):
            connection, _ = await picows.ws_connect(
                lambda: transport,
                url,
                ssl_context=ssl_context,
                websocket_handshake_timeout=timeout_seconds,
                logger_name=logging.LoggerAdapter(_library_logger, {}),
                max_frame_size=MAX_FRAME_BYTES,
                extra_headers={**headers, "Sec-WebSocket-Protocol": subprotocol},
                max_redirects=0,
                proxy=proxy,
                **options,
            )
    except ProxyError as error:
        raise ConnectionError(f"the proxy refused: {error}") from error
    except ssl.SSLError:
        raise  # a certificate that is not trusted is a ValueError as well
    except (picows.WSInvalidURL, ValueError) as error:
        # The library of proxies raises ValueError for schemes that it does not know.
        raise ConnectionError(f"not a usable address: {error}") from error
    except picows.WSHandshakeError as error:
        response = error.response
        if response is None:
            raise ConnectionError(str(error)) from error
        body = (error.raw_body or b"")[:2048].decode("utf-8", "replace")
        raise UpgradeRefused(int(response.status), body, dict(response.headers)) from error
    except asyncio.CancelledError:
        # The library drops its handshake no sooner than at the timeout.
        transport.abandon()
        raise
    if connection.response.headers.get("Sec-WebSocket-Protocol") != subprotocol:
        transport.abort()
        raise ConnectionError(f"the server does not speak {subprotocol}")
