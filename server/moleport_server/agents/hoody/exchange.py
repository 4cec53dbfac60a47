"""One request towards a stock client: HTTP/1.1 for the edge, an exchange of frames for the driver.

The edge speaks HTTP/1.1 over byte streams and does everything else with them: it holds, sends again,
captures, limits, paces. So the adapter is a byte stream too, and the edge needs no second kind. Towards
the driver it sends the head as JSON and the body as DATA; towards the edge it writes the head of the
answer as HTTP with `Connection: close` and lets DATA through untouched. The framing of an answer is then
decided where it always is: by Content-Length, else by the end of the stream; HEAD, 204, 304 and 101 need
no case here, and an answer that is cut short is found out by the edge.

A stream serves one exchange. When the edge has its answer and lets go, the driver may still owe the EOF;
it is awaited without the edge, because a RESET would make an old driver answer it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import httptools

from moleport_server.agents.hoody.heads import (
    answer_head,
    joined_fields,
    switch_framing,
    text_fields,
    text_of,
)
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.exchanges import ExchangeOpen, HeadTooLarge, ResponseHead
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.stock import StockStream
from moleport_wire.hoody.streams import StreamReceiver

EOF_SECONDS: Final = 5.0
"""How long a driver may take to end a stream after the last byte of its answer."""
ABANDONED_SECONDS: Final = 600.0
"""How long an old driver may work on a GET that nobody waits for; it holds one of its sockets."""
DECLINED_SECONDS: Final = 10.0
"""How long the body of a declined upgrade may pause, if nothing tells its length: the local service
ends it by closing a connection that it may keep open."""
_CLOSE: Final = b"Connection: close\r\n"
_CHUNK: Final = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;[^\r\n]*)?\r\n")
_NO_BODY: Final = "hoody-tunnel clients drop the body of GET and HEAD, so it was not sent"
_BODILESS: Final = frozenset({204, 304})


class Driver(Protocol):
    """The session, as one exchange sees it."""

    is_old: bool

    def submit(self, exchange: ExchangeStream) -> None:
        """Open its stream now or later; `opened` or `lost` is called."""

    def withdraw(self, exchange: ExchangeStream) -> None:
        """Forget an exchange that has no stream."""

    def freed(self, exchange: ExchangeStream) -> None:
        """Note that it uses no socket of the driver's pool any more."""


class Phase(Enum):
    """How far the request is."""

    HEAD = "head"
    """Its head is not complete."""
    WAITING = "waiting"
    """In line for a stream."""
    OPEN = "open"
    ENDED = "ended"


class ExchangeStream:
    """One request (a `ByteStream` for the edge, an `ExchangeReceiver` for the mux)."""

    __slots__ = (
        "_answer_left",
        "_detached",
        "_driver",
        "_drops_body",
        "_fields",
        "_has_eof",
        "_has_head",
        "_is_abandoned",
        "_is_complete",
        "_is_paused",
        "_is_switched",
        "_is_upgrade",
        "_method",
        "_parser",
        "_phase",
        "_pieces",
        "_stream",
        "_target",
        "_timer",
        "_undecided",
        "bind_id",
        "opening",
        "receiver",
    )

    def __init__(self, driver: Driver, bind_id: int, receiver: StreamReceiver) -> None:
        self._driver = driver
        self.bind_id = bind_id
        self.receiver = receiver
        self.opening = b""
        """The STREAM_OPEN payload, once the head is known."""
        self._parser = httptools.HttpRequestParser(self)
        self._phase = Phase.HEAD
        self._stream: StockStream | None = None
        self._method = ""
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        """Parts of the body that wait for the stream."""
        self._is_complete = False
        """Whether the whole request is known."""
        self._is_upgrade = False
        self._is_switched = False
        self._is_paused = False
        self._has_head = False
        self._has_eof = False
        self._drops_body = False
        self._answer_left = -1
        """Bytes of the answer to come; -1 if only its end tells."""
        self._undecided: ResponseHead | None = None
        """The head of a declined upgrade, until its first bytes tell how it is framed."""
        self._detached = False
        self._is_abandoned = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_simple(self) -> bool:
        """Whether it needs no EOF from us before its answer, so that any socket will do."""
        return self._method in ("GET", "HEAD") and not self._is_upgrade

    # ByteStream

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written; never for another request."""
        return self._phase is not Phase.ENDED and (self._is_switched or not self._is_complete)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the stream or in it."""
        waiting = sum(map(len, self._pieces))
        return waiting if self._stream is None else waiting + self._stream.queued_bytes

    def write(self, data: Payload) -> None:
        """Take bytes of the request, or of the protocol that it was upgraded to."""
        if self._phase is Phase.ENDED:
            return
        if self._is_switched:
            if self._stream is not None:
                self._stream.write(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing follows before the service has agreed
        except httptools.HttpParserError as error:
            # The edge writes valid requests; whatever this is, it must not reach the driver.
            self._fail(Code.INTERNAL, f"unreadable request: {error}")
            return
        if self._phase is Phase.HEAD and self._method:
            self._submit()
        self._flush()

    def write_eof(self) -> None:
        """End our direction of an upgraded connection; requests end by their framing."""
        if self._stream is not None and self._is_switched:
            self._stream.write_eof()

    def reset(self, code: int, reason: str = "") -> None:
        """Let go: nobody waits for the answer, because it is complete or because it is unwanted."""
        was_detached, self._detached = self._detached, True
        if self._phase is Phase.ENDED or was_detached:
            return
        stream = self._stream
        if stream is None:
            self._end()
            self._driver.withdraw(self)
        elif self._has_head and not (self._answer_left or self._has_eof) and self._is_complete:
            # Complete; only the driver's EOF is missing.
            stream.resume_reading()
            self._start_timer(EOF_SECONDS, self._eof_is_late)
        elif self._driver.is_old and self.is_simple and not self._has_eof:
            # It goes on with a GET whatever we say. Once it answers it may end, or just stop.
            stream.abandon(code, reason)
            self._is_abandoned = True
            self._start_timer(EOF_SECONDS if self._has_head else ABANDONED_SECONDS, self._drop)
        else:
            self._end()
            stream.reset(code, reason)

    def pause_reading(self) -> None:
        """Grant no more credit."""
        self._is_paused = True
        if self._stream is not None:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Grant credit again."""
        self._is_paused = False
        if self._stream is not None:
            self._stream.resume_reading()

    # httptools.HttpRequestParser

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field."""
        if not self._method:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note that the head is known."""
        self._method = self._parser.get_method().decode("ascii")

    def on_body(self, data: bytes) -> None:
        """Keep a piece until it can be sent, which is usually at once."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._is_complete = True

    # The request

    def _submit(self) -> None:
        fields = dict(self._fields)
        self._is_upgrade = fields.get(b"upgrade", b"").strip().lower() == b"websocket"
        is_bodiless = self._method in ("GET", "HEAD")
        if is_bodiless and fields.get(b"content-length", b"0").strip(b"0"):
            self._fail(Code.EXHAUSTED, _NO_BODY)
            return
        method = self._method
        if method == "HEAD" and self._driver.is_old:
            # An old client answers HEAD when its idle connection ends, and then with an error.
            method = "GET"
            self._drops_body = True
        dropped = {b"connection", b"upgrade", b"transfer-encoding", b"expect"}
        if self._is_upgrade:
            dropped = {b"expect"}
        if is_bodiless:
            # The driver would pass the length on without the body, and the service would wait.
            dropped.add(b"content-length")
        pairs = [(name, value) for name, value in self._fields if name not in dropped]
        head = ExchangeOpen(
            method=method,
            target=text_of(self._target),
            fields=joined_fields(pairs) if self._is_upgrade else text_fields(pairs),
            is_upgrade=self._is_upgrade,
            bind_id=self.bind_id,
        )
        try:
            self.opening = head.encode()
        except HeadTooLarge as error:
            self._fail(Code.FRAME_SIZE, str(error))
            return
        self._phase = Phase.WAITING
        self._driver.submit(self)

    def _flush(self) -> None:
        """Send what is known of the body, and its end."""
        if self._phase is Phase.ENDED:
            return
        if self._pieces and self.is_simple:
            self._fail(Code.EXHAUSTED, _NO_BODY)
            return
        stream = self._stream
        if stream is None:
            if self._pieces and self._phase is Phase.WAITING:
                self.receiver.stream_pause_writing()
            return
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            stream.write(piece)
        if self._is_complete and not self.is_simple and not self._is_upgrade:
            stream.write_eof()

    def opened(self, stream: StockStream) -> None:
        """Begin: the session has opened the stream."""
        self._phase = Phase.OPEN
        self._stream = stream
        if self._is_paused:
            stream.pause_reading()
        had_waited = bool(self._pieces)
        self._flush()
        if had_waited:
            self.receiver.stream_resume_writing()

    # ExchangeReceiver

    def stream_head(self, payload: Payload) -> None:
        """Write the head of the answer as HTTP."""
        if self._is_abandoned:
            self._start_timer(EOF_SECONDS, self._drop)
        if self._detached or self._phase is Phase.ENDED:
            return
        try:
            head = ResponseHead.decode(payload)
        except RemoteProtocolError as error:
            self._break(error.reason)
            return
        if self._has_head:
            self._break("a second head")
        elif head.status == 101 and not self._is_upgrade:
            self._break("101 for a request that asked for no upgrade")
        elif head.status < 200 and head.status != 101:
            self.receiver.stream_data(answer_head(head.status, head.fields, b""))
        else:
            self._take_head(head)

    def _take_head(self, head: ResponseHead) -> None:
        self._has_head = True
        if head.status == 101:
            self._is_switched = True
            self._driver.freed(self)
            self.receiver.stream_data(answer_head(101, head.fields, switch_framing(head.fields)))
            return
        lengths = {value.strip() for name, value in head.fields if name.lower() == "content-length"}
        length = lengths.pop() if len(lengths) == 1 else ""
        if self._method == "HEAD" or head.status in _BODILESS:
            # An old client was sent GET for HEAD: what follows is a body that nobody asked for, and
            # the reset of the edge, which is done with the head, stops it.
            self._answer_left = -1 if self._drops_body else 0
            self._drops_body = True
        elif length.isascii() and length.isdigit():
            self._answer_left = int(length)
        elif self._is_upgrade:
            self._undecided = head
            self._start_timer(DECLINED_SECONDS, self._declined_in_silence)
            return
        self.receiver.stream_data(answer_head(head.status, head.fields, _CLOSE))

    def _decide(self, first: bytes) -> None:
        """Write the head of the answer to a declined upgrade, which is framed as its body begins.

        The driver took Transfer-Encoding away and left the chunks: it does not parse such answers.
        """
        head, self._undecided = self._undecided, None
        if head is not None:
            framing = b"Transfer-Encoding: chunked\r\n" if _CHUNK.match(first) else _CLOSE
            self.receiver.stream_data(answer_head(head.status, head.fields, framing))

    def stream_data(self, data: Payload) -> None:
        """Pass on bytes of the answer."""
        if self._is_abandoned:
            self._start_timer(EOF_SECONDS, self._drop)
        if self._detached or self._phase is Phase.ENDED:
            return
        if not self._has_head:
            self._break("DATA before the head")
            return
        if self._drops_body:
            return
        self._decide(bytes(data[:64]))
        if self._detached:
            return
        if self._timer is not None:
            self._start_timer(DECLINED_SECONDS, self._declined_in_silence)
        if self._answer_left > 0:
            self._answer_left = max(0, self._answer_left - len(data))
        self.receiver.stream_data(data)

    def stream_eof(self) -> None:
        """Pass on the end of the answer."""
        if self._phase is Phase.ENDED:
            return
        if not self._has_head and not self._detached:
            self._break("the end before the head")
            return
        self._stop_timer()
        self._has_eof = True
        stream = self._stream
        if stream is not None and self._is_complete and not self._is_switched:
            # For GET and HEAD it comes only now: earlier it would move the answer to the primary.
            stream.write_eof()
        if self._detached:
            self._end()
            return
        self._decide(b"")
        self.receiver.stream_eof()

    def stream_reset(self, code: int, reason: str) -> None:
        """Pass on that the stream is gone.

        Drivers say «refused» whatever it was: a service that is down, or one that closed a connection
        which was kept for the next request. The latter is worth another try, so neither counts as final.
        """
        self.lost(Code.STREAM_CLOSED if code == Code.REFUSED else code, reason)

    def stream_pause_writing(self) -> None:
        """Pass on."""
        if not self._detached:
            self.receiver.stream_pause_writing()

    def stream_resume_writing(self) -> None:
        """Pass on."""
        if not self._detached:
            self.receiver.stream_resume_writing()

    # The end

    def lost(self, code: int, reason: str) -> None:
        """End without a word to the driver; the edge is told unless it has let go."""
        if self._phase is Phase.ENDED:
            return
        has_stream = self._stream is not None
        is_told = not self._detached
        self._end()
        if not has_stream:
            self._driver.withdraw(self)
        if is_told:
            self.receiver.stream_reset(code, reason)

    def take_away(self, code: int, reason: str) -> None:
        """Reset it for a reason of the server: the driver and the edge are told."""
        stream = self._stream
        if stream is not None:
            stream.reset(code, reason)
        self.lost(code, reason)

    def _break(self, reason: str) -> None:
        """End an exchange in which the driver broke a rule; its session goes on."""
        self.take_away(Code.PROTOCOL_ERROR, reason)

    def _fail(self, code: int, reason: str) -> None:
        """End it from inside of a call of the edge, which must not be called back at once."""
        if self._stream is not None:
            self._stream.reset(Code.CANCEL, reason)
        self._pieces = []
        self._phase = Phase.ENDED
        self._stop_timer()
        if self._stream is None:
            self._driver.withdraw(self)
        asyncio.get_running_loop().call_soon(self._tell_lost, code, reason)

    def _tell_lost(self, code: int, reason: str) -> None:
        if not self._detached:
            self.receiver.stream_reset(code, reason)

    def _end(self) -> None:
        self._phase = Phase.ENDED
        self._pieces = []
        self._stop_timer()

    def _eof_is_late(self) -> None:
        self._timer = None
        if self._stream is not None:
            self._stream.reset(Code.CANCEL, "no end after the answer")
        self._end()

    def _drop(self) -> None:
        self._timer = None
        self._end()
        if self._stream is not None:
            self._stream.drop()

    def _declined_in_silence(self) -> None:
        """End the answer to a declined upgrade: nothing tells its length, and nothing more comes."""
        self._timer = None
        self._has_eof = True
        self._decide(b"")
        self.receiver.stream_eof()  # the edge is done with it, and resets it

    def _start_timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
