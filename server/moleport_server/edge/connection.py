"""One visitor's connection: HTTP/1.1 parsed by llhttp, guarded by our own rules.

The owner of a socket (`SocketOwner`) and the handler of its parser. There is no task and no await on the
way of a request: bytes come in by `buffer_updated`, the exchange writes to a stream, the answer comes
back by a callback. A request that repeats the fields of an earlier one is not parsed again
(`known_heads`).

Rules that llhttp does not enforce (measured on httptools 0.9) are enforced here: one Host field, no
HTTP/0.9, no Transfer-Encoding in HTTP/1.0 or other than `chunked`, absolute form equal to Host, bounded
heads. Other upgrades than WebSocket are stripped; if such a request has a body, llhttp loses its
framing, and a new parser is set on it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from moleport_server.access.addresses import is_inside
from moleport_server.edge.exchange import NEVER, Exchange
from moleport_server.edge.forwarding import (
    REQUEST_FIELDS,
    Field,
    append_forwarded,
    hostname_of,
    is_host,
    is_request_id,
    split_absolute,
    tokens,
)
from moleport_server.edge.known_heads import REQUEST_LINE, RequestTemplate
from moleport_server.edge.pool import UpstreamConnection
from moleport_server.edge.refusals import Refusal
from moleport_server.registry.live import Tunnel
from moleport_wire.aio.resets import watch_for_reset, watch_while_paused
from moleport_wire.aio.sockets import (
    abort_with_reset,
    format_peer,
    half_close,
    resume_reading,
    settle_reading,
)
from moleport_wire.hoody.frames import Payload

if TYPE_CHECKING:
    from moleport_server.edge.http import HttpEdge

logger = logging.getLogger(__name__)

MAX_PIPELINED: Final = 16
"""Requests of one connection that may wait for their turn before reading pauses."""
SLICE_BYTES: Final = 4096
"""Heads are fed in pieces of this size, so that one read cannot make hundreds of requests at once."""
WRITE_BUFFER_BYTES: Final = 16 * 1024
"""What a visitor that does not read costs besides the window of its stream; the kernel keeps more, so
that a fast one is not slowed down."""
WRITE_RESUME_BYTES: Final = 4 * 1024
LINGER_SECONDS: Final = 2.0
"""After an answer that came before the end of the request, the rest is read and dropped so long:
closing at once would destroy the answer in flight (RFC 9112 section 9.6)."""
LINGER_BYTES: Final = 4 * 1024 * 1024


_NUMBERS: Final = itertools.count(1)
_SCHEMES: Final = frozenset({b"http", b"https"})


class EdgeConnection:
    """One visitor's connection."""

    __slots__ = (
        "_address",
        "_candidate",
        "_current",
        "_edge",
        "_feeding",
        "_field_count",
        "_has_ended",
        "_head_bytes",
        "_in_head",
        "_is_closing",
        "_is_lingering",
        "_is_muted",
        "_is_write_paused",
        "_lingered",
        "_parser",
        "_parsing",
        "_pause_reasons",
        "_raw",
        "_template",
        "_transport",
        "_unfed",
        "_waiting",
        "address",
        "address_bytes",
        "deadline",
        "is_trusted",
        "number",
        "opened_at",
        "peer",
        "scheme",
        "tunnel",
        "write",
        "write_all",
    )

    def __init__(
        self,
        edge: HttpEdge,
        address: tuple[str, int] | None,
        *,
        is_tls: bool,
        tunnel: Tunnel | None = None,
    ) -> None:
        self._edge = edge
        self.tunnel = tunnel
        """The only tunnel that it can reach; None: the host name tells."""
        self._address = address
        self._transport: asyncio.Transport
        self.scheme = b"https" if is_tls else b"http"
        self.number = next(_NUMBERS)
        self.opened_at = edge.monotonic()
        self.peer = ""
        self.address = ""
        self.address_bytes = b""
        self.is_trusted = False
        self.deadline = NEVER
        """Monotonic seconds; looked at once a second."""
        self._parser: Any = None
        """Made for the first request that is not known: many connections come for one request."""
        self._parsing: Exchange | None = None
        """The request whose bytes come in."""
        self._current: Exchange | None = None
        """The request that is being answered."""
        self._waiting: deque[Exchange] = deque()
        self._raw: UpstreamConnection | None = None
        self._template: RequestTemplate | None = None
        """The fields of the last request, if another one like it could follow."""
        self._candidate: RequestTemplate | None = None
        self._unfed = b""
        self._in_head = True
        self._head_bytes = 0
        self._field_count = 0
        self._is_muted = False
        self._is_closing = False
        self._has_ended = False
        self._is_lingering = False
        self._lingered = 0
        self._is_write_paused = False
        self._pause_reasons = 0
        self._feeding = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way or an upgraded connection is open."""
        return self._current is not None or self._raw is not None

    @property
    def current(self) -> Exchange | None:
        """The request that is being answered, and after an upgrade the one that asked for it."""
        return self._current

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is and wait for a request."""
        # The loop's promise for stream sockets; C transports do not inherit from asyncio.Transport.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        # For the exchange: bound, because a method in between would cost every answer.
        self.write: Callable[[Payload], object] = transport.write
        self.write_all: Callable[[list[Payload]], object] = transport.writelines
        settle_reading(transport)
        edge = self._edge
        peername: Any = self._address or transport.get_extra_info("peername")
        self.peer = format_peer(peername)
        self.address = peername[0] if self.peer else ""
        self.address_bytes = self.address.encode()
        trusted = edge.settings.trusted_proxies
        self.is_trusted = bool(trusted) and is_inside(self.address, trusted)
        if not edge.opened(self):
            self._is_closing = True
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES, low=WRITE_RESUME_BYTES)
        watch_for_reset(transport)
        self.deadline = edge.now + edge.settings.head_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the abort on to the service."""
        self._edge.closed(self)
        self._is_closing = True
        raw = self._raw
        current, self._current = self._current, None
        if current is not None:
            current.visitor_left()
        for exchange in self._waiting:
            exchange.visitor_left()
        self._waiting.clear()
        if raw is not None:
            self._raw = None
            raw.abandon("the visitor left")
        # These refer to us. What refers to itself is freed by the garbage collector only, much later and
        # all at once.
        self._parser = None
        self._parsing = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer for one read."""
        del sizehint
        return self._edge.buffer.lend()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        data = self._edge.buffer.take(nbytes)
        if (
            self._current is not None
            or self._waiting
            or self._head_bytes
            or self._is_closing
            or self._is_write_paused
            or not self._in_head
            or self._raw is not None
            or self._unfed
        ):
            self.data_received(data)
            return
        template = self._template
        match = None if template is None else template.match(data)
        if template is None or match is None:
            template = self._edge.known_requests.find(data)
            match = None if template is None else template.match(data)
            if template is None or match is None:
                self.data_received(data)
                return
            self._template = template
        exchange = self._current = self._parsing = Exchange(self._edge, self)
        self.deadline = NEVER
        exchange.repeat(template, match[1], match[2])
        exchange.start()

    def data_received(self, data: bytes) -> None:
        """Parse, or relay after an upgrade."""
        raw = self._raw
        if raw is not None:
            exchange = self._current
            if exchange is not None:
                exchange.relay_request(len(data))
            raw.stream.write(data)
            return
        if self._is_lingering:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.abort()
            return
        if self._unfed or self._is_upgrading():
            self._unfed += data
            return
        self._feed(data)

    def eof_received(self) -> bool:
        """End with the visitor; only one with requests in the pipeline still gets their answers."""
        raw = self._raw
        if raw is not None:
            raw.stream.write_eof()
            self._is_closing = True
            return not self._has_ended
        if self._current is None and not self._waiting:
            return False
        if self._parsing is not None and not self._parsing.was_complete:
            # A request that ends in the middle never becomes complete.
            self.abort()
            return False
        if not self._waiting:
            # A FIN does not tell who left from who only ended its side. Servers and proxies take it
            # for the former: a service must not work on for nobody, least of all on a long poll.
            self.abort()
            return False
        self._end_after_last()
        return True

    def peer_left(self, *, is_broken: bool) -> None:
        """End with a visitor that left while nothing is read, as `eof_received` would."""
        # An end may be behind bytes that still matter; reading on will come to it.
        may_matter = self._raw is not None or bool(self._waiting) or self._current is None
        if is_broken or not may_matter:
            self.abort()

    def pause_writing(self) -> None:
        """The visitor does not read."""
        self._is_write_paused = True
        if self._raw is not None:
            self._raw.stream.pause_reading()
        elif self._current is not None:
            self._current.pause_response()

    def resume_writing(self) -> None:
        """The visitor reads again."""
        self._is_write_paused = False
        if self._raw is not None:
            self._raw.stream.resume_reading()
        elif self._current is not None:
            self._current.resume_response()
        elif self._waiting:
            self._next()

    # Parsing

    def _feed(self, data: bytes) -> None:
        self._feeding = True
        try:
            is_small = len(data) <= SLICE_BYTES or not self._in_head
            if is_small and len(self._waiting) < MAX_PIPELINED:
                self._feed_piece(data)
            else:
                self._feed_slices(data)
        finally:
            self._feeding = False

    def _is_upgrading(self) -> bool:
        """Whether what comes now is for after the service's answer to an upgrade.

        Reading is paused then, but TLS may deliver what it had decrypted before.
        """
        parsing = self._parsing
        return (
            parsing is not None
            and parsing.is_upgrade
            and (parsing is self._current or parsing in self._waiting)
        )

    def _feed_slices(self, data: bytes) -> None:
        position = 0
        while position < len(data) and not self._is_closing and self._raw is None:
            if len(self._waiting) >= MAX_PIPELINED:
                self._unfed = data[position:]
                self.pause_reading()
                return
            # Inside a body the rest may go in at once; heads go in slices.
            end = position + SLICE_BYTES if self._in_head else len(data)
            self._feed_piece(data[position:end])
            position = end
            if self._unfed:
                # Early bytes behind a request for an upgrade: the rest of them is no HTTP either.
                self._unfed += data[position:]
                return

    def _feed_piece(self, data: bytes) -> None:
        is_at_start = self._in_head and not self._head_bytes
        if self._in_head:
            self._head_bytes += len(data)
        self._forget_candidate()
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse_malformed(error)
            return
        if self._in_head and self._head_bytes > self._edge.settings.head_bytes:
            self._refuse_head(Refusal.HEAD_TOO_LARGE)
        candidate = self._candidate
        if candidate is not None and is_at_start and not self._head_bytes:
            # One whole request, nothing before it and nothing behind it.
            end = data.find(b"\r\n")
            if data.find(b"\r\n\r\n") == len(data) - 4 and REQUEST_LINE.fullmatch(data, 0, end):
                candidate.block = data[end:]
                self._template = candidate
                self._edge.known_requests.learn(candidate)

    def _forget_candidate(self) -> None:
        self._candidate = None

    def _after_upgrade(self, rest: bytes) -> None:
        """Go on behind the point where llhttp stops, a request that asks for an upgrade."""
        exchange = self._parsing
        if exchange is None or self._is_closing:
            return
        if exchange.is_upgrade:
            # Early bytes of the new protocol wait until the service has agreed.
            self._unfed = rest
            self.pause_reading()
            return
        self._parser = httptools.HttpRequestParser(self)
        if exchange.is_chunked or exchange.content_length > 0:
            # llhttp took the body for another protocol: set a parser on it that knows the framing.
            framing = (
                b"Transfer-Encoding: chunked"
                if exchange.is_chunked
                else b"Content-Length: %d" % exchange.content_length
            )
            self._is_muted = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
            self._is_muted = False
        if rest:
            self._feed_piece(rest)

    def on_message_begin(self) -> None:
        """A request starts."""
        if self._is_muted:
            return
        if self._is_closing:
            # Behind a request that ended the connection: nothing of it may reach the service.
            self._parsing = None
            return
        self._parsing = Exchange(self._edge, self)
        self._in_head = True
        self._field_count = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        exchange = self._parsing
        if exchange is not None and not self._is_muted:
            exchange.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass a field on, or note what it means."""
        exchange = self._parsing
        if exchange is None or self._is_muted or not self._in_head:
            return  # a trailer: dropped, since it could not be announced
        self._field_count += 1
        field = REQUEST_FIELDS.get(name.lower())
        if field is None:
            exchange.lines.append(b"%b: %b\r\n" % (name, value))
        else:
            self._note_field(exchange, field, value)

    def _note_field(self, exchange: Exchange, field: Field, value: bytes) -> None:
        if field is Field.HOST:
            # A second Host is refused with the head: which one would be right?
            exchange.host = value.strip(b" \t") if exchange.host is None else b"\0"
        elif field is Field.ACCEPT:
            exchange.accept = value
            exchange.lines.append(b"Accept: %b\r\n" % value)
        elif field is Field.CONNECTION:
            exchange.named = tokens(value) | (exchange.named or frozenset())
        elif field is Field.CONTENT_LENGTH:
            exchange.content_length = int(value) if value.isdigit() else -2
        elif field is Field.TRANSFER_ENCODING:
            is_known = value.strip().lower() == b"chunked" and not exchange.is_chunked
            exchange.is_chunked = True
            if not is_known:
                exchange.content_length = -2
        elif field is Field.UPGRADE:
            exchange.upgrade = value
        elif field is Field.EXPECT:
            exchange.expects_continue = value.lower() == b"100-continue"
        elif field is Field.AUTHORIZATION:
            exchange.authorization = value
        elif field is Field.REQUEST_ID:
            if is_request_id(value):
                exchange.request_id = value
        elif field is Field.FORWARDED_FOR:
            exchange.forwarded_for = append_forwarded(exchange.forwarded_for, value)
        elif field is Field.FORWARDED_PROTO:
            exchange.forwarded_proto = value.lower() if value.lower() in _SCHEMES else None
        elif field is Field.FORWARDED_HOST:
            exchange.forwarded_host = value if is_host(value) else None

    def on_headers_complete(self) -> None:
        """Check the head; it is this request's turn if nothing is before it."""
        exchange = self._parsing
        if exchange is None or self._is_muted:
            return
        self._in_head = False
        self._head_bytes = 0
        parser = self._parser
        exchange.method = parser.get_method()
        exchange.is_head = exchange.method == b"HEAD"
        problem = self._check_head(exchange, parser.get_http_version())
        if problem is not None:
            self._refuse_head(problem)
            return
        exchange.keeps_alive = parser.should_keep_alive() or (
            # llhttp takes every upgrade for the end of HTTP on this connection.
            exchange.upgrade is not None
            and not exchange.is_upgrade
            and exchange.is_http11
            and b"close" not in (exchange.named or ())
        )
        if not exchange.is_chunked and exchange.content_length <= 0:
            # Known now: an answer at once may keep the connection.
            exchange.was_complete = not exchange.is_upgrade
        self._candidate = _template_of(exchange)
        if self._current is None and not self._waiting and not self._is_write_paused:
            self._current = exchange
            self.deadline = NEVER
            exchange.start()
        else:
            self._waiting.append(exchange)

    def _check_head(self, exchange: Exchange, version: str) -> Refusal | None:
        if version == "1.1":
            pass
        elif version == "1.0":
            exchange.is_http11 = False
            exchange.expects_continue = False
            if exchange.is_chunked:
                return Refusal.BAD_REQUEST
        else:
            return Refusal.BAD_REQUEST if version == "0.9" else Refusal.HTTP_VERSION
        if self._field_count > self._edge.settings.head_fields:
            return Refusal.HEAD_TOO_LARGE
        host = exchange.host
        hostname = None if host is None else hostname_of(host)
        if host is None or hostname is None or exchange.content_length == -2:
            return Refusal.BAD_REQUEST
        exchange.hostname = hostname
        if exchange.method == b"CONNECT":
            return Refusal.METHOD_NOT_ALLOWED
        target = exchange.target
        if not target.startswith(b"/") and (target != b"*" or exchange.method != b"OPTIONS"):
            parts = split_absolute(target)
            if parts is None or parts[0].lower() != host.lower():
                return Refusal.BAD_REQUEST
            exchange.target = parts[1]
        if exchange.upgrade is not None:
            exchange.is_upgrade = (
                exchange.upgrade.strip().lower() == b"websocket"
                and b"upgrade" in (exchange.named or ())
                and exchange.is_http11
            )
            if exchange.is_upgrade and (exchange.is_chunked or exchange.content_length > 0):
                return Refusal.BAD_REQUEST
        return None

    def on_body(self, data: bytes) -> None:
        """Pass on a piece of the request body."""
        exchange = self._parsing
        if exchange is not None and not self._is_muted:
            exchange.body_received(data)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        exchange = self._parsing
        if exchange is None or self._is_muted or self._is_closing:
            return
        if (
            exchange.upgrade is not None
            and not exchange.is_upgrade
            and (exchange.is_chunked or exchange.content_length > 0)
            and self._parser.should_upgrade()
        ):
            return  # only for llhttp: the body follows, see `_after_upgrade`
        self._in_head = True
        self._head_bytes = 0
        exchange.body_complete()

    def _refuse_malformed(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            # A fault of ours inside a callback; the visitor gets an end, the log gets the reason.
            logger.error("edge callback failed", exc_info=error.__context__ or error)
            self.abort()
            return
        if self._is_closing:
            return  # behind the last request that is answered
        exchange = self._parsing
        if exchange is not None and not self._in_head and exchange.host is not None:
            # The head was fine, its body is not: nothing of it may look complete to the service.
            if exchange is self._current and exchange.status == 0:
                exchange.keeps_alive = False
                exchange.refuse(Refusal.BAD_REQUEST, detail=str(error))
            elif not exchange.was_complete:
                self.abort()
            return
        if self._current is not None or self._waiting:
            # Answers before it go out first; bytes behind `Connection: close` end here as well.
            self._end_after_last()
            return
        self._refuse_head(Refusal.BAD_REQUEST, str(error))

    def _refuse_head(self, case: Refusal, detail: str = "") -> None:
        """Answer a head that cannot be served, and close."""
        exchange = self._parsing or Exchange(self._edge, self)
        exchange.keeps_alive = False
        if self._current is None:
            self._current = exchange
            exchange.refuse(case, detail=detail)
        else:
            # Behind other requests: the connection ends after their answers.
            self._end_after_last()

    def _end_after_last(self) -> None:
        """Answer what has arrived, read nothing more, and close behind the last answer."""
        self._is_closing = True
        last = self._waiting[-1] if self._waiting else self._current
        if last is not None:
            last.keeps_alive = False

    # For the exchange

    def write_eof(self) -> None:
        """End our direction of an upgraded connection, and the connection if it was the last."""
        self._has_ended = True
        if self._is_closing or not half_close(self._transport):
            self._transport.close()

    def pause_reading(self) -> None:
        """Stop reading; calls nest."""
        self._pause_reasons += 1
        if self._pause_reasons == 1 and not self._transport.is_closing():
            self._transport.pause_reading()
            watch_while_paused(self._transport)

    def resume_reading(self) -> None:
        """Take one reason to pause back."""
        self._pause_reasons -= 1
        if self._pause_reasons == 0 and not self._transport.is_closing():
            resume_reading(self._transport)

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """Relay raw bytes from here on, the early ones first."""
        del exchange
        self._raw = upstream
        if self._is_write_paused:
            upstream.stream.pause_reading()
        early, self._unfed = self._unfed, b""
        if early:
            upstream.stream.write(early)
        self.resume_reading()

    def exchange_done(self, exchange: Exchange) -> None:
        """The answer is complete: close, linger, or take the next request."""
        if exchange is not self._current or self._transport.is_closing():
            return
        if self._raw is not None:
            self._raw = None
            self._transport.close()
            return
        self._current = None
        if not exchange.was_complete:
            self._linger()
            return
        if not exchange.keeps_alive or (self._is_closing and not self._waiting):
            self._is_closing = True
            self._transport.close()
            return
        if exchange.is_upgrade:
            # The service declined: HTTP goes on behind the request.
            self._parser = None
            self.resume_reading()
        if self._waiting:
            self._next()
        else:
            self.deadline = self._edge.now + self._edge.settings.idle_seconds
            if self._edge.is_draining:
                self._transport.close()
                return
        if self._unfed and not self._feeding:
            self._feed_rest(exchange)

    def _next(self) -> None:
        # Not from inside the answer of the one before: a long pipeline must not grow the stack.
        asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        # Not for a visitor who has yet to read the answer before: who does not read is told to
        # pause once, so a second answer would not stop and be kept in memory.
        if (
            self._current is None
            and self._waiting
            and not self._is_write_paused
            and not self._transport.is_closing()
        ):
            exchange = self._current = self._waiting.popleft()
            self.deadline = NEVER
            exchange.start()

    def _feed_rest(self, exchange: Exchange) -> None:
        rest, self._unfed = self._unfed, b""
        if not exchange.is_upgrade:
            self.resume_reading()
        self._feed(rest)

    def _linger(self) -> None:
        """Close after the rest of the request was read and dropped, or after a moment."""
        self._is_lingering = True
        self._is_closing = True
        self._unfed = b""
        while self._pause_reasons:
            self.resume_reading()
        self.deadline = self._edge.monotonic() + LINGER_SECONDS
        half_close(self._transport)

    def drain(self) -> None:
        """Close when idle; otherwise the answer under way is the last."""
        if self._raw is None and self._current is None and not self._waiting:
            self._transport.close()

    def deadline_passed(self) -> None:
        """Act on a deadline that is over."""
        current = self._current
        self.deadline = NEVER
        if current is not None:
            current.timed_out()
        elif self._is_lingering or (self._in_head and not self._head_bytes):
            self._transport.close()
        else:
            self._refuse_head(Refusal.REQUEST_TIMEOUT)

    def abort(self) -> None:
        """End with a reset, so that nothing looks complete."""
        self._is_closing = True
        abort_with_reset(self._transport)


def _template_of(exchange: Exchange) -> RequestTemplate | None:
    """Return the fields of a request that may be repeated without parsing them again.

    The block of bytes is added when the whole request is known.
    """
    host = exchange.host
    if (
        host is None
        or exchange.content_length != -1
        or exchange.is_chunked
        or exchange.upgrade is not None
        or exchange.expects_continue
        or exchange.request_id is not None
        or exchange.forwarded_for is not None
        or exchange.forwarded_proto is not None
        or exchange.forwarded_host is not None
        or not exchange.is_http11
        or not exchange.keeps_alive
    ):
        return None
    return RequestTemplate(
        b"",
        host=host,
        hostname=exchange.hostname,
        lines=exchange.lines,
        named=exchange.named,
        accept=exchange.accept,
        authorization=exchange.authorization,
    )
