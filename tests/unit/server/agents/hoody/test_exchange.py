"""The adapter between the HTTP/1.1 of the edge and the exchanges of a stock driver."""

from typing import Any

import pytest

from helpers.waiting import until
from moleport_server.agents.hoody.exchange import ExchangeStream
from moleport_wire.hoody import frames
from moleport_wire.hoody.exchanges import ExchangeOpen, ResponseHead
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.mux import Link
from moleport_wire.hoody.stock import StockMux
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget

WINDOW = 131_072
GET = b"GET /a?b HTTP/1.1\r\nHost: pod:80\r\nAccept: */*\r\nX-Request-Id: r-1\r\n\r\n"
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: pod\r\nCookie: a=1\r\nCookie: b=2\r\nAccept: x\r\nAccept: y\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
)


class Edge:
    """The edge's side: what it was told."""

    def __init__(self) -> None:
        self.written = b""
        self.has_eof = False
        self.reset: tuple[int, str] | None = None
        self.is_paused = False

    def stream_data(self, data: Payload) -> None:
        self.written += bytes(data)

    def stream_eof(self) -> None:
        self.has_eof = True

    def stream_reset(self, code: int, reason: str) -> None:
        assert self.reset is None
        self.reset = (code, reason)

    def stream_pause_writing(self) -> None:
        self.is_paused = True

    def stream_resume_writing(self) -> None:
        self.is_paused = False


class Driver:
    """A session with one link, and the driver at its other end."""

    def __init__(self, *, is_old: bool = False, has_room: bool = True) -> None:
        self.is_old = is_old
        self.has_room = has_room
        self.waiting: list[ExchangeStream] = []
        self.withdrawn: list[ExchangeStream] = []
        self.freed_ones: list[ExchangeStream] = []
        self.ended: list[Stream] = []
        self.mux = StockMux(
            self,
            ReceiveBudget(1 << 24, WINDOW),
            stream_window=WINDOW,
            session_window=1 << 20,
            on_end=self.ended.append,
        )
        self.link = Link(self.mux, 0, lambda: None)
        self.link.room = 1 << 20
        self.mux.attach(self.link)
        self.edge = Edge()
        self.exchange = ExchangeStream(self, 7, self.edge)
        self.stream_id = 2

    # The session

    def submit(self, exchange: ExchangeStream) -> None:
        if not self.has_room:
            self.waiting.append(exchange)
            return
        exchange.opened(
            self.mux.open_stock(self.link, exchange, exchange.opening, on_head=exchange.stream_head)
        )

    def withdraw(self, exchange: ExchangeStream) -> None:
        self.withdrawn.append(exchange)

    def freed(self, exchange: ExchangeStream) -> None:
        self.freed_ones.append(exchange)

    def let_in(self) -> None:
        self.has_room = True
        self.submit(self.waiting.pop(0))

    # The driver

    def sent(self) -> list[tuple[int, bytes]]:
        return [
            (kind, bytes(payload))
            for message in self.link.take(1 << 20)
            for kind, _, payload in frames.parse(message)
        ]

    def opening(self) -> ExchangeOpen:
        (kind, payload), *_ = self.sent()
        assert kind == frames.STREAM_OPEN
        return ExchangeOpen.decode(payload)

    def answer(self, status: int, *fields: tuple[str, str]) -> None:
        head = ResponseHead(status=status, fields=fields).encode()
        self.receive(frames.STREAM_RESPONSE_HEAD, head)

    def receive(self, kind: int, payload: bytes = b"") -> None:
        self.mux.receive(self.link, frames.serialize(kind, self.stream_id, payload))

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None: ...
    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None: ...
    def stream_stalled(self, stream: Stream) -> None: ...
    def stream_drained(self, stream: Stream) -> None: ...
    def stream_blocked(self, stream: Stream) -> None: ...
    def stream_unblocked(self, stream: Stream) -> None: ...


@pytest.fixture
async def driver() -> Driver:
    return Driver()


# Requests


async def test_a_get_is_one_frame_without_an_end(driver: Driver) -> None:
    driver.exchange.write(GET)

    ((kind, payload),) = driver.sent()
    assert kind == frames.STREAM_OPEN
    assert ExchangeOpen.decode(payload) == ExchangeOpen(
        method="GET",
        target="/a?b",
        fields=(("host", "pod:80"), ("accept", "*/*"), ("x-request-id", "r-1")),
        bind_id=7,
    )
    assert driver.exchange.is_simple
    assert not driver.exchange.is_open


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_get_or_head_loses_the_length_of_its_empty_body(
    driver: Driver, method: str
) -> None:
    # The service would wait for what the driver does not send.
    driver.exchange.write(f"{method} / HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n".encode())

    ((_, payload),) = driver.sent()
    assert ExchangeOpen.decode(payload).fields == (("host", "pod"),)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_everything_but_get_and_head_has_exactly_one_end(driver: Driver, method: str) -> None:
    head = f"{method} / HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n"
    driver.exchange.write(head.encode())
    driver.answer(200, ("Content-Length", "0"))
    driver.receive(frames.EOF)

    assert [kind for kind, _ in driver.sent()] == [frames.STREAM_OPEN, frames.EOF]
    assert not driver.exchange.is_simple


@pytest.mark.parametrize(
    "parts",
    [
        [b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 6\r\n\r\n", b"abc", b"def"],
        [
            b"POST / HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n",
            b"3\r\nd",
            b"ef\r\n",
            b"0\r\n\r\n",
        ],
    ],
    ids=["length", "chunked"],
)
async def test_a_body_goes_out_as_it_comes_and_loses_its_framing(
    driver: Driver, parts: list[bytes]
) -> None:
    driver.exchange.write(parts[0])
    opened = driver.opening()
    for part in parts[1:]:
        driver.exchange.write(part)

    sent = driver.sent()
    assert b"".join(payload for kind, payload in sent if kind == frames.DATA) == b"abcdef"
    assert [kind for kind, _ in sent].count(frames.EOF) == 1
    assert "transfer-encoding" not in dict(opened.fields)


async def test_an_upgrade_keeps_its_fields_and_joins_repeated_ones(driver: Driver) -> None:
    driver.exchange.write(UPGRADE)

    opened = driver.opening()
    assert opened.is_upgrade
    assert dict(opened.fields) == {
        "host": "pod",
        "cookie": "a=1; b=2",
        "accept": "x, y",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "k",
    }
    assert not driver.exchange.is_simple


@pytest.mark.parametrize(
    ("raw", "text"), [(b"\xc3\xbc", "ü"), (b"\xfc", "ü")], ids=["utf-8", "latin-1"]
)
async def test_bytes_of_a_field_are_text_for_the_driver(
    driver: Driver, raw: bytes, text: str
) -> None:
    driver.exchange.write(b"GET / HTTP/1.1\r\nHost: pod\r\nA: " + raw + b"\r\n\r\n")

    assert dict(driver.opening().fields)["a"] == text


async def test_an_old_driver_is_asked_get_for_head_and_its_body_is_dropped() -> None:
    driver = Driver(is_old=True)
    driver.exchange.write(b"HEAD / HTTP/1.1\r\nHost: pod\r\n\r\n")

    assert driver.opening().method == "GET"
    driver.answer(200, ("Content-Length", "3"))
    driver.receive(frames.DATA, b"abc")

    assert driver.edge.written.endswith(b"\r\n\r\n")
    assert b"Content-Length: 3" in driver.edge.written


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: pod\r\nContent-Length: 1\r\n\r\n", Code.EXHAUSTED),
        (
            b"GET / HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            Code.EXHAUSTED,
        ),
        (b"GET / HTTP/1.1\r\nHost: pod\r\nA: " + b'"' * 40_000 + b"\r\n\r\n", Code.FRAME_SIZE),
        (b"\x16\x03\x01", Code.INTERNAL),
    ],
    ids=["body of GET", "chunked body of GET", "head too large", "no HTTP"],
)
async def test_what_cannot_be_sent_ends_behind_the_call_of_the_edge(
    driver: Driver, request_bytes: bytes, code: Code
) -> None:
    driver.exchange.write(request_bytes)

    assert driver.edge.reset is None  # the edge is still inside of `write`
    await until(lambda: driver.edge.reset is not None)
    assert driver.edge.reset is not None
    assert driver.edge.reset[0] == code
    assert driver.mux.open_streams == 0


# Answers


async def test_an_answer_is_http_with_its_body_untouched(driver: Driver) -> None:
    driver.exchange.write(GET)
    driver.answer(200, ("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b"))
    driver.receive(frames.DATA, b"hello")
    driver.receive(frames.EOF)

    assert driver.edge.written == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Connection: close\r\n\r\nhello"
    )
    assert driver.edge.has_eof


async def test_fields_of_a_connection_are_not_the_drivers_to_set(driver: Driver) -> None:
    driver.exchange.write(GET)
    driver.answer(
        200,
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Trailer", "Expires"),
        ("Upgrade", "h2c"),
        ("X", "ü"),
    )

    assert driver.edge.written == b"HTTP/1.1 200 OK\r\nX: \xfc\r\nConnection: close\r\n\r\n"


async def test_an_early_hint_is_passed_on_before_the_answer(driver: Driver) -> None:
    driver.exchange.write(GET)
    driver.answer(103, ("Link", "</a.css>"))
    driver.answer(200, ("Content-Length", "0"))

    assert driver.edge.written.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    assert b"HTTP/1.1 200 OK" in driver.edge.written


@pytest.mark.parametrize(
    ("status", "fields", "body", "expected"),
    [
        (404, [("Content-Length", "2")], b"no", b"HTTP/1.1 404 Not Found"),
        (299, [], b"", b"HTTP/1.1 299 \r\n"),
    ],
)
async def test_any_status_has_a_status_line(
    driver: Driver, status: int, fields: Any, body: bytes, expected: bytes
) -> None:
    driver.exchange.write(GET)
    driver.answer(status, *fields)

    assert driver.edge.written.startswith(expected)


async def test_a_switch_of_protocols_is_raw_from_there_on(driver: Driver) -> None:
    driver.exchange.write(UPGRADE)
    driver.answer(101, ("Connection", "Upgrade"), ("Upgrade", "websocket"))
    driver.exchange.write(b"GET / not a request")
    driver.receive(frames.DATA, b"raw")
    driver.exchange.write_eof()

    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw" in driver.edge.written
    assert driver.sent()[1:] == [(frames.DATA, b"GET / not a request"), (frames.EOF, b"")]
    assert driver.freed_ones == [driver.exchange]


@pytest.mark.parametrize(
    ("body", "framing"),
    [(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"), (b"hello", b"Connection: close")],
    ids=["chunked", "until the end"],
)
async def test_a_declined_upgrade_is_framed_as_its_body_begins(
    driver: Driver, body: bytes, framing: bytes
) -> None:
    driver.exchange.write(UPGRADE)
    driver.answer(403, ("Content-Type", "text/plain"))
    nothing_yet = driver.edge.written
    driver.receive(frames.DATA, body)

    assert nothing_yet == b""
    assert driver.edge.written == (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n" + framing + b"\r\n\r\n" + body
    )


@pytest.mark.parametrize("rule", ["data", "end", "twice", "switch", "nonsense"])
async def test_a_broken_rule_ends_the_exchange_and_not_the_session(
    driver: Driver, rule: str
) -> None:
    driver.exchange.write(GET)
    driver.sent()

    match rule:
        case "data":
            driver.receive(frames.DATA, b"x")
        case "end":
            driver.receive(frames.EOF)
        case "twice":
            driver.answer(200)
            driver.answer(200)
        case "switch":
            driver.answer(101)
        case "nonsense":
            driver.receive(frames.STREAM_RESPONSE_HEAD, b"{")

    assert driver.edge.reset is not None
    assert driver.edge.reset[0] == Code.PROTOCOL_ERROR
    assert driver.mux.open_streams == 0


# Ends


async def test_a_complete_answer_needs_no_reset_only_its_end(driver: Driver) -> None:
    driver.exchange.write(GET)
    driver.answer(200, ("Content-Length", "2"))
    driver.receive(frames.DATA, b"ok")

    driver.exchange.reset(Code.CANCEL, "done with it")
    still_open = driver.mux.open_streams
    driver.receive(frames.EOF)

    assert [kind for kind, _ in driver.sent()] == [frames.STREAM_OPEN, frames.EOF]
    assert (still_open, driver.mux.open_streams) == (1, 0)
    assert not driver.edge.has_eof


async def test_an_unwanted_answer_is_reset(driver: Driver) -> None:
    driver.exchange.write(GET)
    driver.answer(200, ("Content-Length", "2"))

    driver.exchange.reset(Code.CANCEL, "the visitor left")
    driver.exchange.reset(Code.CANCEL, "again")
    driver.receive(frames.DATA, b"ok")

    kinds = [kind for kind, _ in driver.sent()]
    assert kinds == [frames.STREAM_OPEN, frames.RESET]
    assert driver.mux.open_streams == 0


async def test_an_early_answer_resets_the_rest_of_the_upload(driver: Driver) -> None:
    driver.exchange.write(b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 9\r\n\r\nabc")
    driver.answer(413, ("Content-Length", "0"))
    driver.receive(frames.EOF)

    driver.exchange.reset(Code.CANCEL, "answered")

    assert driver.sent()[-1][0] == frames.RESET
    assert driver.mux.open_streams == 0


async def test_what_an_old_driver_still_answers_is_taken_and_dropped() -> None:
    driver = Driver(is_old=True)
    driver.exchange.write(GET)

    driver.exchange.reset(Code.CANCEL, "the visitor left")
    driver.answer(200)
    driver.receive(frames.DATA, bytes(65_536))
    driver.receive(frames.EOF)

    assert [kind for kind, _ in driver.sent()].count(frames.RESET) == 1
    assert driver.edge.written == b""
    assert driver.mux.open_streams == 0


async def test_a_request_waits_for_its_turn_and_pauses_its_upload() -> None:
    driver = Driver(has_room=False)
    driver.exchange.pause_reading()
    driver.exchange.write(b"POST / HTTP/1.1\r\nHost: pod\r\nContent-Length: 3\r\n\r\nabc")
    waiting = driver.exchange.queued_bytes
    was_paused = driver.edge.is_paused

    driver.let_in()

    assert (waiting, was_paused, driver.edge.is_paused) == (3, True, False)
    assert [kind for kind, _ in driver.sent()] == [
        frames.STREAM_OPEN,
        frames.DATA,
        frames.EOF,
    ]


async def test_a_visitor_that_leaves_the_line_was_never_seen_by_the_driver() -> None:
    driver = Driver(has_room=False)
    driver.exchange.write(GET)

    driver.exchange.reset(Code.CANCEL, "the visitor left")

    assert driver.withdrawn == [driver.exchange]
    assert driver.sent() == []


@pytest.mark.parametrize("has_room", [True, False], ids=["open", "in line"])
async def test_an_exchange_that_is_taken_away_is_told_to_both_sides(has_room: bool) -> None:
    driver = Driver(has_room=has_room)
    driver.exchange.write(GET)
    driver.sent()

    driver.exchange.take_away(Code.TAKEOVER, "taken over")
    driver.exchange.take_away(Code.TAKEOVER, "again")

    assert driver.edge.reset == (Code.TAKEOVER, "taken over")
    assert [kind for kind, _ in driver.sent()] == ([frames.RESET] if has_room else [])


async def test_a_lost_session_is_told_to_the_edge_once(driver: Driver) -> None:
    driver.exchange.write(GET)

    driver.mux.close(Code.STREAM_CLOSED, "gone")
    driver.exchange.lost(Code.STREAM_CLOSED, "again")

    assert driver.edge.reset == (Code.STREAM_CLOSED, "gone")


async def test_a_refusal_of_a_driver_may_be_tried_again(driver: Driver) -> None:
    driver.exchange.write(GET)

    driver.receive(frames.RESET, Code.REFUSED.to_bytes(2, "big") + b"local connect failed")

    assert driver.edge.reset == (Code.STREAM_CLOSED, "local connect failed")


async def test_an_end_that_does_not_come_is_not_waited_for_for_ever(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moleport_server.agents.hoody.exchange.EOF_SECONDS", 0.01)
    driver.exchange.write(GET)
    driver.answer(200, ("Content-Length", "0"))

    driver.exchange.reset(Code.CANCEL, "done with it")
    await until(lambda: driver.mux.open_streams == 0)

    assert driver.sent()[-1][0] == frames.RESET
    assert driver.edge.reset is None


async def test_a_declined_upgrade_without_a_body_ends_after_a_while(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moleport_server.agents.hoody.exchange.DECLINED_SECONDS", 0.01)
    driver.exchange.write(UPGRADE)
    driver.answer(403)

    await until(lambda: driver.edge.has_eof)

    assert driver.edge.written == b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"
