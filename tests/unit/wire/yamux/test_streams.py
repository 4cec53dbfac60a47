from typing import Unpack

import pytest

from helpers.pair import Reader
from helpers.yamux_pair import WINDOW, Frame, Limits, Side, YamuxPair
from moleport_wire.errors import LocalProtocolError
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import HIGH_WATER_BYTES
from moleport_wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    MAX_BODY_BYTES,
    MAX_CREDIT,
    MAX_WINDOW_BYTES,
    RST,
    SYN,
    WINDOW_UPDATE,
    serialize,
)
from moleport_wire.yamux.streams import WAITING_HIGH_WATER_BYTES, Stream

PREFACE = bytes(range(16))


def opened(**limits: Unpack[Limits]) -> tuple[Side, Stream, Reader]:
    """A side whose stream 1 is open and whose SYN is out."""
    side = Side(limits=limits)
    stream, reader = side.open(PREFACE)
    side.take()
    return side, stream, reader


def of_kind(frames: list[Frame], kind: int) -> list[Frame]:
    return [frame for frame in frames if frame.kind == kind]


def test_bytes_cross_in_both_directions_and_both_sides_end() -> None:
    pair = YamuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both(PREFACE)

    ours.write(b"question")
    ours.write_eof()
    pair.settle()
    theirs.write(b"answer")
    theirs.write_eof()
    pair.settle()

    assert (bytes(their_reader.data), their_reader.eofs) == (PREFACE + b"question", 1)
    assert (bytes(our_reader.data), our_reader.eofs) == (b"answer", 1)
    assert our_reader.resets == their_reader.resets == []
    assert pair.client.mux.open_streams == pair.server.mux.open_streams == 0
    assert pair.client.budget.committed_bytes == pair.server.budget.committed_bytes == 0


def test_syn_preface_and_the_first_request_leave_in_one_message() -> None:
    side = Side()
    stream, _ = side.open(PREFACE)
    stream.write(b"GET / HTTP/1.1\r\n\r\n")

    messages = side.take()

    assert len(messages) == 1
    assert messages[0] == serialize(DATA, SYN, 1, body=PREFACE) + serialize(
        DATA, 0, 1, body=b"GET / HTTP/1.1\r\n\r\n"
    )


def test_a_stream_is_announced_once_and_before_its_syn() -> None:
    side = Side()
    seen: list[list[bytes]] = []

    def begin() -> bytes:
        seen.append(side.mux.batch.take())
        return PREFACE

    side.mux.open(Reader(), begin)

    assert seen == [[]]
    assert side.take() == [serialize(DATA, SYN, 1, body=PREFACE)]


def test_an_accepted_stream_acknowledges_with_its_first_frame_only() -> None:
    pair = YamuxPair()
    _, _, theirs, _ = pair.open_both()

    theirs.write(b"one")
    theirs.write(b"two")

    assert [(f.flags, f.body) for f in pair.server.frames()] == [(ACK, b"one"), (0, b"two")]


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (Stream.write_eof, Frame(DATA, ACK | FIN, 1, 0)),
        (Stream.reset, Frame(DATA, ACK | RST, 1, 0)),
        (Stream._send_eof, Frame(DATA, ACK | FIN, 1, 0)),
    ],
    ids=["end", "reset", "end at once"],
)
def test_an_end_carries_the_acknowledgement_if_nothing_did_before(
    act: object, expected: Frame
) -> None:
    pair = YamuxPair()
    _, _, theirs, _ = pair.open_both()

    assert callable(act)
    act(theirs)

    assert pair.server.frames() == [expected]


def test_credit_carries_the_acknowledgement_if_nothing_did_before() -> None:
    pair = YamuxPair()
    ours, *_ = pair.open_both()
    ours.write(bytes(WINDOW // 2))
    while pair.flush(pair.client) or pair.client.mux.has_more:
        pass
    while pair.deliver(pair.server):
        pass

    frames = of_kind(pair.server.frames(), WINDOW_UPDATE)

    assert [frame.flags for frame in frames] == [ACK] + [0] * (len(frames) - 1)


def test_after_half_close_only_the_other_direction_flows() -> None:
    pair = YamuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both()

    ours.write_eof()
    ours.write(b"ignored")
    ours.write_eof()
    assert not ours.is_open
    assert pair.flush(pair.client) == [serialize(DATA, FIN, ours.id)]
    pair.settle()
    assert theirs.has_peer_ended
    theirs.write(b"late answer")
    pair.settle()

    assert their_reader.data == b""
    assert our_reader.data == b"late answer"
    assert pair.client.mux.open_streams == 1


def test_the_end_waits_behind_bytes_that_have_no_credit() -> None:
    pair = YamuxPair()
    ours, _, theirs, their_reader = pair.open_both()
    theirs.pause_reading()

    ours.write(bytes(WINDOW + 1))
    ours.write_eof()
    assert not ours.is_open
    ours.write(b"ignored")
    ours.write_eof()
    pair.settle()
    assert (len(their_reader.data), their_reader.eofs) == (WINDOW, 0)
    assert ours in pair.client.blocked
    assert list(pair.client.mux.blocked_streams) == [ours]
    theirs.resume_reading()
    pair.settle()

    assert (len(their_reader.data), their_reader.eofs) == (WINDOW + 1, 1)
    assert pair.client.blocked == set()


def test_large_writes_are_cut_into_bodies_that_the_client_takes() -> None:
    side, stream, _ = opened()

    stream.write(bytes(MAX_BODY_BYTES + 1))
    lengths = [frame.length for frame in side.frames()]

    assert max(lengths) <= MAX_BODY_BYTES
    assert sum(lengths) == MAX_BODY_BYTES + 1


def test_no_more_than_the_window_leaves_and_ends_cost_nothing() -> None:
    side, stream, _ = opened()

    stream.write(bytes(WINDOW))
    frames = []
    for _ in range(20):
        frames += side.frames()

    assert sum(frame.length for frame in frames) == WINDOW - len(PREFACE)
    assert side.blocked == {stream}
    stream.reset(Code.CANCEL)
    assert side.frames() == [Frame(DATA, RST, 1, 0)]
    assert side.blocked == set()


@pytest.mark.parametrize("credit", [1, WINDOW, MAX_CREDIT], ids=["a byte", "a window", "the most"])
def test_any_credit_is_taken(credit: int) -> None:
    side, stream, _ = opened()
    stream.write(bytes(2 * WINDOW))
    while side.frames():
        pass
    left = stream.queued_bytes

    side.mux.receive(serialize(WINDOW_UPDATE, ACK, 1, credit))
    side.mux.receive(serialize(WINDOW_UPDATE, 0, 1, MAX_CREDIT if credit == MAX_CREDIT else 0))
    sent = 0
    while frames := side.frames():
        sent += sum(frame.length for frame in frames)

    assert sent == min(credit, left)


def test_writing_nothing_sends_nothing() -> None:
    side, stream, _ = opened()

    stream.write(b"")

    assert stream.queued_bytes == 0
    assert side.frames() == []


def test_a_writer_is_paused_above_and_resumed_below_the_water_marks() -> None:
    pair = YamuxPair()
    ours, our_reader, theirs, _ = pair.open_both()
    theirs.pause_reading()
    ours.write(bytes(WINDOW))
    pair.settle()

    ours.write(bytes(HIGH_WATER_BYTES))
    assert not our_reader.is_paused
    ours.write(b"x")
    assert our_reader.is_paused
    assert ours.queued_bytes == HIGH_WATER_BYTES + 1
    theirs.resume_reading()
    pair.settle()

    assert not our_reader.is_paused
    assert ours.queued_bytes == 0


def test_a_stalled_reader_costs_exactly_its_window() -> None:
    pair = YamuxPair()
    ours, our_reader, theirs, _ = pair.open_both()
    ours.pause_reading()
    assert ours.is_reading_paused
    assert pair.client.stalled == set()

    theirs.write(bytes(8 * WINDOW))
    pair.settle()

    assert len(our_reader.data) == WINDOW
    assert pair.client.stalled == {ours}
    assert list(pair.client.mux.stalled_streams) == [ours]
    assert pair.client.budget.held_bytes == WINDOW
    ours.resume_reading()
    pair.settle()
    assert len(our_reader.data) == 8 * WINDOW
    assert pair.client.budget.held_bytes == 0
    assert pair.client.stalled == set()


def test_reading_on_without_a_pause_changes_nothing() -> None:
    side, stream, _ = opened()

    stream.resume_reading()

    assert side.frames() == []


def test_small_answers_earn_no_credit_frame() -> None:
    side, _, reader = opened()

    side.mux.receive(serialize(DATA, ACK, 1, body=bytes(WINDOW // 2 - 1)))

    assert len(reader.data) == WINDOW // 2 - 1
    assert side.frames() == []


def test_a_window_grows_with_the_first_grant_to_a_reader_that_keeps_up() -> None:
    side, stream, _ = opened()

    side.mux.receive(serialize(DATA, ACK, 1, body=bytes(WINDOW // 2)))

    assert side.frames() == [Frame(WINDOW_UPDATE, 0, 1, WINDOW // 2 + WINDOW)]
    assert stream.window.size == 2 * WINDOW


def test_windows_grow_up_to_their_limit() -> None:
    side, stream, _ = opened()

    for _ in range(10):
        side.mux.receive(serialize(DATA, 0, 1, body=bytes(stream.window.size // 2)))

    assert stream.window.size == MAX_WINDOW_BYTES
    assert stream.window.credit == MAX_WINDOW_BYTES


def test_a_window_does_not_grow_for_a_reader_that_stalled() -> None:
    side, stream, _ = opened()
    stream.pause_reading()
    side.mux.receive(serialize(DATA, ACK, 1, body=bytes(WINDOW // 4)))
    stream.resume_reading()

    side.mux.receive(serialize(DATA, 0, 1, body=bytes(WINDOW // 8)))

    assert stream.window.size == WINDOW


def test_windows_do_not_grow_when_the_budget_is_short() -> None:
    side, stream, _ = opened()
    side.budget.committed_bytes = side.budget.limit_bytes

    side.mux.receive(serialize(DATA, ACK, 1, body=bytes(WINDOW // 2)))

    assert side.frames() == [Frame(WINDOW_UPDATE, 0, 1, WINDOW // 2)]
    assert stream.window.size == WINDOW


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b"", Code.REFUSED),
        (serialize(WINDOW_UPDATE, ACK, 1, 5), Code.REFUSED),
        (serialize(DATA, ACK, 1, body=b"HTTP"), Code.CANCEL),
        (serialize(DATA, ACK | FIN, 1), Code.CANCEL),
    ],
    ids=["at once", "after credit", "after bytes", "after its end"],
)
def test_a_reset_before_any_answer_is_a_refusal_by_the_service(
    before: bytes, expected: Code
) -> None:
    side, stream, reader = opened()
    side.mux.receive(before)

    side.mux.receive(serialize(DATA, RST, 1))

    assert [code for code, _ in reader.resets] == [expected]
    assert not stream.is_open
    assert side.mux.open_streams == 0
    assert side.frames() == []


def test_a_reset_of_ours_frees_everything_and_calls_nobody() -> None:
    side, stream, reader = opened()
    stream.pause_reading()
    side.mux.receive(serialize(DATA, ACK, 1, body=b"unread"))
    stream.write(bytes(2 * WINDOW))

    stream.reset(Code.CANCEL, "the visitor went away")
    stream.reset(Code.CANCEL)
    stream.write(b"ignored")
    stream.write_eof()
    stream.resume_reading()

    assert side.frames()[-1] == Frame(DATA, RST, 1, 0)
    assert side.frames() == []
    assert (side.mux.open_streams, reader.resets, stream.queued_bytes) == (0, [], 0)
    assert side.budget.committed_bytes == side.budget.held_bytes == 0
    assert side.stalled == side.blocked == set()


def test_after_its_end_a_peer_is_not_heard_on_that_stream() -> None:
    side, _, reader = opened()
    side.mux.receive(serialize(DATA, FIN, 1, body=b"last"))

    side.mux.receive(serialize(DATA, 0, 1, body=bytes(2 * WINDOW)))
    side.mux.receive(serialize(DATA, FIN, 1))

    assert (bytes(reader.data), reader.eofs) == (b"last", 1)


def test_an_end_behind_a_body_comes_after_its_last_piece() -> None:
    side, _, reader = opened()
    data = serialize(DATA, ACK | FIN, 1, body=b"pieces")

    for position in range(len(data) - 1):
        side.mux.receive(data[position : position + 1])
    assert (bytes(reader.data), reader.eofs) == (b"piece", 0)
    side.mux.receive(data[-1:])

    assert (bytes(reader.data), reader.eofs) == (b"pieces", 1)


def test_an_end_on_a_credit_frame_is_an_end() -> None:
    side, stream, reader = opened()

    side.mux.receive(serialize(WINDOW_UPDATE, ACK | FIN, 1, 5))

    assert reader.eofs == 1
    assert stream.has_peer_ended
    assert stream.is_open


def test_a_receiver_may_reset_in_the_midst_of_a_body() -> None:
    side, stream, reader = opened()

    class Refuses(Reader):
        def stream_data(self, data: bytes | memoryview) -> None:
            super().stream_data(data)
            stream.reset(Code.CANCEL)

    stream.receiver = reader = Refuses()
    data = serialize(DATA, ACK, 1, body=b"abcdef")
    side.mux.receive(data[:14])
    side.mux.receive(data[14:])

    assert reader.data == b"ab"
    assert side.frames() == [Frame(DATA, RST, 1, 0)]
    assert side.budget.committed_bytes == 0


def test_a_stream_that_waits_queues_what_is_written_and_pauses_its_writer_early() -> None:
    side, first, _ = opened(max_streams=1)
    waiting, reader = side.open(PREFACE)

    waiting.write(bytes(WAITING_HIGH_WATER_BYTES))
    assert not reader.is_paused
    waiting.write(b"x")

    assert waiting.is_waiting
    assert reader.is_paused
    assert side.frames() == []
    assert side.blocked == set()
    side.mux.receive(serialize(DATA, RST, first.id))
    frames = side.frames()
    assert not waiting.is_waiting
    assert frames[0] == Frame(DATA, SYN, 3, 16, PREFACE)
    assert sum(frame.length for frame in frames) == 16 + WAITING_HIGH_WATER_BYTES + 1
    assert not reader.is_paused


def test_a_stream_that_ends_before_it_is_open_is_opened_and_ended() -> None:
    side, first, _ = opened(max_streams=1)
    waiting, _ = side.open()
    waiting.write_eof()

    side.mux.receive(serialize(DATA, RST, first.id))

    assert side.frames() == [Frame(DATA, SYN, 3, 0), Frame(DATA, FIN, 3, 0)]


def test_a_waiting_stream_that_is_reset_leaves_no_trace() -> None:
    side, first, _ = opened(max_streams=1)
    begun: list[None] = []

    def begin() -> bytes:
        begun.append(None)
        return PREFACE

    waiting = side.mux.open(Reader(), begin)
    waiting.write(b"request")

    waiting.reset(Code.CANCEL)
    waiting.reset(Code.CANCEL)
    side.mux.receive(serialize(DATA, RST, first.id))

    assert not waiting.is_waiting
    assert side.frames() == []
    assert (begun, side.mux.open_streams, side.budget.committed_bytes) == ([], 0, 0)


def test_a_stream_that_waits_is_withdrawn_without_a_trace_and_leaves_its_bytes() -> None:
    side = Side(limits={"max_unacknowledged": 1})
    side.open()
    side.take()
    stream, reader = side.open(b"preface")
    stream.write(b"one")
    stream.write(b"x" * WAITING_HIGH_WATER_BYTES)

    pieces, was_paused = stream.withdraw()

    assert (b"".join(pieces), was_paused) == (b"one" + b"x" * WAITING_HIGH_WATER_BYTES, True)
    assert side.frames() == []
    assert (side.mux.open_streams, reader.resets, stream.is_open) == (1, [], False)
    assert not side.mux.waiting_streams


def test_a_stream_that_the_peer_knows_cannot_be_withdrawn() -> None:
    stream, _ = Side().open()

    with pytest.raises(LocalProtocolError):
        stream.withdraw()
