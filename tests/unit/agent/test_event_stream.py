import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_agent.errors import BadAnswer
from moleport_agent.event_stream import LONGEST_EVENT_BYTES, EventStreamParser, RawEvent

CASES = {
    "one event": (b"id: 1\nevent: a.b\ndata: {}\n\n", [RawEvent("1", "a.b", "{}")]),
    "comment": (b": hello\n\n", [RawEvent(None, "", "", comment="hello")]),
    "crlf": (b"id:2\r\ndata:x\r\n\r\n", [RawEvent("2", "message", "x")]),
    "cr": (b"data: x\r\r", [RawEvent(None, "message", "x")]),
    "two lines of data": (b"data: a\ndata: b\n\n", [RawEvent(None, "message", "a\nb")]),
    "the id stays": (
        b"id: 7\ndata: a\n\ndata: b\n\n",
        [RawEvent("7", "message", "a"), RawEvent("7", "message", "b")],
    ),
    "no data, no event": (b"event: x\n\ndata: a\n\n", [RawEvent(None, "message", "a")]),
    "unknown fields": (b"retry: 5\nfoo\ndata: a\n\n", [RawEvent(None, "message", "a")]),
    "incomplete": (b"data: a\n", []),
}


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES)
def test_a_stream_becomes_events(stream: bytes, expected: list[RawEvent]) -> None:
    assert EventStreamParser().feed(stream) == expected


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES)
def test_a_stream_may_come_byte_by_byte(stream: bytes, expected: list[RawEvent]) -> None:
    parser = EventStreamParser()

    events = [event for byte in stream for event in parser.feed(bytes([byte]))]

    assert events == expected


@given(st.binary(max_size=300), st.integers(0, 300))
def test_where_a_stream_is_cut_makes_no_difference(stream: bytes, cut: int) -> None:
    whole, halves = EventStreamParser(), EventStreamParser()

    assert halves.feed(stream[:cut]) + halves.feed(stream[cut:]) == whole.feed(stream)


@pytest.mark.parametrize(
    "piece", [b"data: " + b"x" * 4090 + b"\n", b"x" * 4096], ids=["lines", "one line"]
)
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    parser = EventStreamParser()

    def feed_for_ever() -> None:
        for _ in range(LONGEST_EVENT_BYTES // len(piece) + 2):
            parser.feed(piece)

    with pytest.raises(BadAnswer, match="larger than"):
        feed_for_ever()


def test_keepalive_comments_never_add_up() -> None:
    parser = EventStreamParser()

    for _ in range(3):
        events = parser.feed(b": still here\n" * 50_000)

    assert len(events) == 50_000
