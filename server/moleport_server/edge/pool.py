"""Keep-alive streams: each one is an HTTP/1.1 connection to the local service, used again and again.

`UpstreamConnection` speaks HTTP/1.1 over one byte stream: it writes the request of its current exchange
and turns the bytes of the answer into the visitor's. A stream goes back to the pool only if the answer
ended by its own framing, the request was sent completely, both sides keep alive and no byte is left
over; in every other case it is reset, so that no answer can ever reach the wrong visitor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import httptools

from moleport_server.edge.forwarding import (
    BODILESS_STATUS,
    RESPONSE_FIELDS,
    Field,
    tokens,
    without_named,
)
from moleport_server.edge.known_heads import AnswerLines
from moleport_server.registry.live import Tunnel
from moleport_server.registry.upstream import ByteStream, WaitingStream
from moleport_wire.hoody.frames import Code, Payload

if TYPE_CHECKING:
    from moleport_server.edge.exchange import Exchange

MAX_RESPONSE_HEAD_BYTES: Final = 128 * 1024
MAX_RESPONSE_FIELDS: Final = 500
COPY_BELOW_BYTES: Final = 16 * 1024
"""Joining small pieces is cheaper than writing them one by one; large ones are not copied."""
RAW_FROM_BYTES: Final = 64 * 1024
"""Bodies with more to come than this are counted instead of parsed: the parser would copy them."""
LEARN_BYTES: Final = 4096
"""Heads within this are remembered line by line."""
MAX_IDLE_PER_TUNNEL: Final = 512
FRESH_SECONDS: Final = 1.0
"""Other than idempotent requests use a stream that was idle for less: local services close idle
connections after a few seconds, and such a request cannot be sent again."""
IDLE_SECONDS: Final = 55.0
"""Idle streams are closed after this, before most services would do it themselves."""


class UpstreamConnection:
    """One stream to a local service, a `StreamReceiver` and the parser of its answers."""

    __slots__ = (
        "_close_delimited",
        "_fields",
        "_had_request_id",
        "_head_bytes",
        "_in_head",
        "_interim",
        "_is_chunked",
        "_keeps_alive",
        "_known_lines",
        "_length",
        "_lines",
        "_named",
        "_out",
        "_out_bytes",
        "_parser",
        "_raw_remaining",
        "_reason",
        "_upgrade",
        "exchange",
        "idle_since",
        "is_done",
        "is_raw",
        "is_unclean",
        "on_lost",
        "stream",
        "tunnel",
    )

    def __init__(
        self,
        tunnel: Tunnel,
        on_lost: Callable[[UpstreamConnection], None],
        known_lines: AnswerLines,
    ) -> None:
        self.tunnel = tunnel
        self.on_lost = on_lost
        self._known_lines = known_lines
        self.stream: ByteStream
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.is_raw = False
        """Whether it was upgraded: bytes pass as they are."""
        self.is_unclean = False
        self.is_done = False
        self._parser: httptools.HttpResponseParser | None = None
        """Made for the first head that is not known: many requests end without one."""
        self._out: list[Payload] = []
        self._out_bytes = 0
        self._raw_remaining = 0

    def begin(self, exchange: Exchange) -> None:
        """Take over an exchange; its request is written to `stream` next."""
        self.exchange = exchange
        self.is_done = False
        self._in_head = True
        self._head_bytes = 0
        self._close_delimited = False

    def _start_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._fields = 0
        self._lines: list[bytes] = []
        self._reason = b""
        self._named: frozenset[bytes] | None = None
        self._length = -1
        self._is_chunked = False
        self._close_delimited = False
        self._upgrade: bytes | None = None
        self._had_request_id = False
        self._interim = False
        self._keeps_alive = False

    def abandon(self, reason: str) -> None:
        """Reset the stream: nobody waits for its answer any more. Idempotent."""
        self.exchange = None
        self.is_unclean = True
        self.stream.reset(Code.CANCEL, reason)

    # StreamReceiver

    def stream_data(self, data: Payload) -> None:
        """Turn bytes of the answer into bytes for the visitor."""
        exchange = self.exchange
        if exchange is None:
            # Bytes on an idle stream: an answer nobody asked for.
            self.is_unclean = True
            self.stream.reset(Code.PROTOCOL_ERROR, "bytes on an idle stream")
            self.on_lost(self)
            return
        if self.is_raw:
            exchange.relay(data)
            return
        if self._raw_remaining:
            self._take_raw(exchange, data)
            return
        is_first = False
        if self._in_head:
            if not self._head_bytes:
                is_first = True
                if self._take_known(exchange, data):
                    return
                self._start_head()
            self._head_bytes += len(data)
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._flush(exchange)
            self._switch(exchange, bytes(data[upgrade.args[0] :]))
            return
        except httptools.HttpParserError as error:
            if self.exchange is exchange and not self.is_done:
                self._flush(exchange)
                self._fail(exchange, f"malformed answer: {error}")
                return
            self.is_unclean = True
        if self.exchange is not exchange:
            return  # refused or ended by a callback
        if self._in_head and self._head_bytes > MAX_RESPONSE_HEAD_BYTES:
            self._fail(exchange, "the head of the answer is too large")
            return
        if is_first and not self._in_head:
            self._known_lines.learn(bytes(data[:LEARN_BYTES]))
        self._flush(exchange)
        if self.is_done and not exchange.status:
            self._fail(exchange, "the service switched to no protocol at all")
        elif self.is_done:
            self._finish(exchange)
        elif self._length - exchange.response_bytes > RAW_FROM_BYTES and not self._in_head:
            self._raw_remaining = self._length - exchange.response_bytes

    def _take_known(self, exchange: Exchange, data: Payload) -> bool:
        """Answer with a head whose lines are all known; False: the parser has to read it."""
        head = self._known_lines.read(data if type(data) is bytes else bytes(data[:LEARN_BYTES]))
        if head is None or exchange.is_head:
            return False
        body = data[head.end :]
        size = len(body)
        length = head.length
        if size > length:
            return False
        self._in_head = False
        self._keeps_alive = True
        block = exchange.start_known(head)
        exchange.response_bytes = size
        if size:
            room = exchange.response_room
            if room > 0:
                exchange.response_room = room - size
                exchange.response_kept.append(bytes(body if size <= room else body[:room]))
            if size < COPY_BELOW_BYTES:
                exchange.connection.write(b"".join((block, body)))
            else:
                exchange.connection.write_all([block, body])
        else:
            exchange.connection.write(block)
        if size == length:
            self.is_done = True
            self._finish(exchange)
        else:
            self._raw_remaining = length - size
        return True

    def stream_eof(self) -> None:
        """End an answer that lasts until the end, or note that the service hung up."""
        exchange = self.exchange
        if exchange is None:
            self.is_unclean = True
            self.stream.write_eof()
            self.on_lost(self)
        elif self.is_raw:
            exchange.relay_eof()
        elif not self._in_head and self._close_delimited:
            self.is_unclean = True
            self.is_done = True
            exchange.end_body()
            self._finish(exchange)
        else:
            self.is_unclean = True
            self.exchange = None
            self.stream.reset(Code.CANCEL, "ended early")
            exchange.upstream_lost(Code.STREAM_CLOSED, "the service closed the connection")

    def stream_reset(self, code: int, reason: str) -> None:
        """Note that the stream is gone."""
        exchange = self.exchange
        self.is_unclean = True
        self.exchange = None
        if exchange is None:
            self.on_lost(self)
        else:
            exchange.upstream_lost(code, reason)

    def stream_pause_writing(self) -> None:
        """Stop the visitor's upload."""
        if self.exchange is not None:
            self.exchange.pause_request()

    def stream_resume_writing(self) -> None:
        """Let it go on."""
        if self.exchange is not None:
            self.exchange.resume_request()

    # httptools.HttpResponseParser

    def on_message_begin(self) -> None:
        """Notice a second answer behind the first."""
        if self.is_done:
            self.is_unclean = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase, which may come in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass a field on, or note what it means."""
        if not self._in_head or self.is_done:
            return  # a trailer: dropped, since it could not be announced
        field = RESPONSE_FIELDS.get(name.lower())
        self._fields += 1
        if field is None:
            self._lines.append(b"%b: %b\r\n" % (name, value))
        elif field is Field.CONTENT_LENGTH:
            self._length = int(value) if value.isdigit() else -1
        elif field is Field.TRANSFER_ENCODING:
            self._is_chunked = True
            if value.strip().lower() != b"chunked":
                self._close_delimited = True
        elif field is Field.CONNECTION:
            self._named = tokens(value) | (self._named or frozenset())
        elif field is Field.UPGRADE:
            self._upgrade = value
        elif field is Field.REQUEST_ID:
            self._had_request_id = True
            self._lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        """Write the visitor's head."""
        exchange = self.exchange
        if exchange is None or self.is_done:
            return
        parser = self._parser
        assert parser is not None  # noqa: S101 - it calls
        status = parser.get_status_code()
        if status < 200 and status != 101:
            self._interim = True
            if status != 100:
                exchange.write_interim(status, self._reason, self._lines)
            return
        self._in_head = False
        if self._fields > MAX_RESPONSE_FIELDS:
            self._fail(exchange, "the answer has too many fields")
            return
        if self._is_chunked and self._close_delimited:
            # We never send TE, so the service must not: undone here it would reach the visitor as
            # bytes that nobody can read (RFC 9112 section 6.1).
            self._fail(exchange, "the answer has a transfer coding that nobody asked for")
            return
        if status == 101:
            return  # `_switch` follows
        lines = self._lines
        if self._named:
            lines = without_named(lines, self._named)
        self._keeps_alive = parser.should_keep_alive()
        has_body = status not in BODILESS_STATUS and not exchange.is_head
        if has_body and self._length < 0:
            self._close_delimited = self._close_delimited or not self._is_chunked
        head = exchange.start_response(
            status,
            self._reason,
            lines,
            length=self._length,
            has_body=has_body,
            has_request_id=self._had_request_id,
        )
        self._out.append(head)
        self._out_bytes += len(head)
        if exchange.is_head:
            self._complete()
            # The parser takes a Content-Length here for a body that never comes.
            self._parser = None

    def on_body(self, data: bytes) -> None:
        """Pass on a piece of the body."""
        exchange = self.exchange
        if exchange is None or self.is_done:
            self.is_unclean = True
            return
        size = len(data)
        exchange.response_bytes += size
        room = exchange.response_room
        if room > 0:
            exchange.response_room = room - size
            exchange.response_kept.append(data if size <= room else data[:room])
        out = self._out
        if exchange.is_chunking:
            out.append(b"%x\r\n" % size)
            out.append(data)
            out.append(b"\r\n")
            self._out_bytes += size + 8
        else:
            out.append(data)
            self._out_bytes += size

    def on_message_complete(self) -> None:
        """Note the end of an answer; interim ones are not the end."""
        if self._interim:
            self._start_head()
            return
        exchange = self.exchange
        if exchange is None or self.is_done or self._in_head:
            return
        self._complete()

    # Inner steps

    def _complete(self) -> None:
        self.is_done = True
        exchange = self.exchange
        if exchange is not None and exchange.is_chunking:
            self._out.append(b"0\r\n\r\n")
            self._out_bytes += 5

    def _take_raw(self, exchange: Exchange, data: Payload) -> None:
        """Pass on a body of known length without the parser."""
        remaining = self._raw_remaining
        size = len(data)
        if size > remaining:
            self.is_unclean = True
            data = data[:remaining]
            size = remaining
        self._raw_remaining = remaining - size
        exchange.response_bytes += size
        room = exchange.response_room
        if room > 0:
            exchange.response_room = room - size
            exchange.response_kept.append(bytes(data if size <= room else data[:room]))
        exchange.connection.write(data)
        if not self._raw_remaining:
            self.is_done = True
            self._parser = None
            self._finish(exchange)

    def _flush(self, exchange: Exchange) -> None:
        out = self._out
        if not out:
            return
        self._out = []
        if len(out) == 1:
            exchange.connection.write(out[0])
        elif self._out_bytes < COPY_BELOW_BYTES:
            exchange.connection.write(b"".join(out))
        else:
            exchange.connection.write_all(out)
        self._out_bytes = 0

    def _finish(self, exchange: Exchange) -> None:
        self.exchange = None
        exchange.response_done(
            self,
            may_reuse=self._keeps_alive
            and not self.is_unclean
            and not self._close_delimited
            and self.stream.is_open,
        )

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        """The service accepted the upgrade: raw bytes from here on."""
        if not exchange.is_upgrade or self._upgrade is None:
            self._fail(exchange, "the service switched protocols without being asked")
            return
        self.is_raw = True
        lines = self._lines
        if self._named:
            lines = without_named(lines, self._named)
        exchange.switch_protocols(self._reason, lines, self._upgrade)
        if rest:
            exchange.relay(rest)

    def _fail(self, exchange: Exchange, reason: str) -> None:
        self._out = []
        self._out_bytes = 0
        self.exchange = None
        self.is_unclean = True
        self.stream.reset(Code.PROTOCOL_ERROR, reason)
        exchange.upstream_malformed(reason)


class StreamPool:
    """Idle streams per tunnel, the most recently used first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.known_lines = AnswerLines()
        """Of the answers of all services."""
        self._idle: dict[Tunnel, deque[UpstreamConnection]] = {}

    @property
    def idle_count(self) -> int:
        """Idle streams in all."""
        return sum(len(idle) for idle in self._idle.values())

    def take(self, tunnel: Tunnel, *, is_idempotent: bool) -> UpstreamConnection | None:
        """Return an idle stream that suits the request, or None: open one."""
        idle = self._idle.get(tunnel)
        if not idle:
            return None
        if not is_idempotent and self._monotonic() - idle[-1].idle_since > FRESH_SECONDS:
            return None
        return idle.pop()

    def put(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a stream for the next request, or let it serve one that waits."""
        session = connection.tunnel.session
        if session is not None and session.upstream.is_crowded:
            self._pass_on(connection, session.upstream.take_waiting(connection.tunnel))
            return
        idle = self._idle.get(connection.tunnel)
        if idle is None:
            idle = self._idle[connection.tunnel] = deque()
        connection.idle_since = now
        # Its last visitor may not have read everything yet; the next one must not wait for that.
        connection.stream.resume_reading()
        idle.append(connection)
        if len(idle) > MAX_IDLE_PER_TUNNEL:
            idle.popleft().abandon("the pool is full")

    def _pass_on(self, connection: UpstreamConnection, waiting: WaitingStream | None) -> None:
        """Let a request that waits for a stream have this one."""
        if waiting is None or not isinstance(waiting.receiver, UpstreamConnection):
            connection.abandon("others wait for a stream")
            return
        heir, stream = waiting.receiver, connection.stream
        heir.stream = stream
        stream.receiver = heir
        stream.resume_reading()
        if waiting.was_paused:
            heir.stream_resume_writing()
        for piece in waiting.pieces:
            stream.write(piece)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a stream that ended while idle."""
        idle = self._idle.get(connection.tunnel)
        if idle is not None and connection in idle:
            idle.remove(connection)

    def drop(self, tunnel: Tunnel, reason: str) -> None:
        """Reset every idle stream of a tunnel."""
        for connection in self._idle.pop(tunnel, ()):
            connection.abandon(reason)

    def sweep(self) -> None:
        """Reset streams that were idle for too long; called once a second."""
        before = self._monotonic() - IDLE_SECONDS
        for tunnel, idle in list(self._idle.items()):
            while idle and idle[0].idle_since < before:
                idle.popleft().abandon("idle")
            if not idle:
                del self._idle[tunnel]
