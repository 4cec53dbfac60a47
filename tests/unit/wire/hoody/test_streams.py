from collections.abc import Callable

import pytest

from helpers.pair import MuxPair, Reader, frames_of
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import MAX_PAYLOAD_BYTES, Code, serialize
from moleport_wire.hoody.streams import (
    HIGH_WATER_BYTES,
    SMALL_BYTES,
    SMALL_ROOM_BYTES,
    Stream,
)

WINDOW = 256 * 1024


def types_on(written: list[list[bytes]], stream: Stream) -> list[int]:
    return [kind for kind, stream_id, _ in frames_of(written) if stream_id == stream.id]


def test_bytes_cross_in_both_directions_and_both_sides_end() -> None:
    pair = MuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both()

    ours.write(b"question")
    ours.write_eof()
    pair.settle()
    theirs.write(b"answer")
    theirs.write_eof()
    pair.settle()

    assert (bytes(their_reader.data), their_reader.eofs) == (b"question", 1)
    assert (bytes(our_reader.data), our_reader.eofs) == (b"answer", 1)
    assert our_reader.resets == their_reader.resets == []
    assert pair.kit.mux.open_streams == pair.driver.mux.open_streams == 0


def test_after_half_close_only_the_other_direction_flows() -> None:
    pair = MuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both()

    ours.write_eof()
    ours.write(b"ignored")
    ours.write_eof()
    assert not ours.is_open
    assert types_on(pair.flush(pair.kit), ours) == [frames.EOF]
    pair.settle()
    theirs.write(b"late answer")
    pair.settle()

    assert their_reader.data == b""
    assert our_reader.data == b"late answer"
    assert pair.kit.mux.open_streams == 1


def test_the_end_waits_behind_bytes_that_have_no_credit() -> None:
    pair = MuxPair()
    ours, _, theirs, their_reader = pair.open_both()
    theirs.pause_reading()

    ours.write(bytes(WINDOW + 1))
    ours.write_eof()
    assert not ours.is_open
    ours.write(b"ignored")
    ours.write_eof()
    pair.settle()
    assert (len(their_reader.data), their_reader.eofs) == (WINDOW, 0)
    theirs.resume_reading()
    pair.settle()

    assert (len(their_reader.data), their_reader.eofs) == (WINDOW + 1, 1)


def test_large_writes_are_cut_into_legal_frames() -> None:
    pair = MuxPair()
    ours, _, _, their_reader = pair.open_both()

    ours.write(bytes(MAX_PAYLOAD_BYTES + 1))
    pair.settle()

    assert max(their_reader.pieces) <= MAX_PAYLOAD_BYTES
    assert len(their_reader.data) == MAX_PAYLOAD_BYTES + 1


def test_writing_nothing_sends_nothing() -> None:
    pair = MuxPair()
    ours, *_ = pair.open_both()

    ours.write(b"")
    pair.kit.links[0].room = 0
    ours.write(b"")

    assert ours.queued_bytes == 0
    assert types_on(pair.flush(pair.kit), ours) == []


def test_a_small_answer_needs_no_room_and_many_of_them_do() -> None:
    pair = MuxPair()
    bulk, *_ = pair.open_both()
    small, *_ = pair.open_both()
    link = pair.kit.links[0]
    link.room = 0
    bulk.write(bytes(SMALL_BYTES))  # needs none either
    bulk.write(bytes(WINDOW - SMALL_BYTES))
    assert bulk.queued_bytes == WINDOW - SMALL_BYTES

    small.write(bytes(SMALL_BYTES))
    assert small.queued_bytes == 0
    small.write(bytes(SMALL_BYTES + 1))
    assert small.queued_bytes == SMALL_BYTES + 1

    other, *_ = pair.open_both()
    link.room = -SMALL_ROOM_BYTES
    other.write(b"x")
    assert other.queued_bytes == 1


def test_a_small_answer_never_overtakes_its_own_stream() -> None:
    pair = MuxPair()
    ours, _, _, their_reader = pair.open_both()
    pair.kit.links[0].room = 0
    ours.write(b"1" * (SMALL_BYTES + 1))
    ours.write(b"2")

    pair.settle()

    assert bytes(their_reader.data) == b"1" * (SMALL_BYTES + 1) + b"2"


def test_a_writer_is_paused_above_and_resumed_below_the_water_marks() -> None:
    pair = MuxPair()
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
    pair = MuxPair()
    ours, _, theirs, their_reader = pair.open_both()
    theirs.pause_reading()
    assert theirs.is_reading_paused
    assert theirs not in pair.driver.stalled

    ours.write(bytes(4 * WINDOW))
    pair.settle()

    assert len(their_reader.data) == WINDOW == pair.driver.budget.held_bytes
    assert theirs in pair.driver.stalled
    assert ours in pair.kit.blocked
    theirs.resume_reading()
    theirs.resume_reading()
    pair.settle()
    assert len(their_reader.data) == 4 * WINDOW
    assert pair.driver.budget.held_bytes == 0
    assert not pair.driver.stalled
    assert not pair.kit.blocked


def test_bytes_held_at_the_end_of_the_peer_need_no_more_credit() -> None:
    pair = MuxPair()
    ours, _, theirs, _ = pair.open_both()
    theirs.pause_reading()
    ours.write(bytes(WINDOW))
    ours.write_eof()
    pair.settle()

    theirs.resume_reading()

    assert pair.driver.budget.held_bytes == 0
    assert types_on(pair.flush(pair.driver), theirs) == []


def test_more_bytes_than_credit_reset_the_stream_and_nothing_else() -> None:
    pair = MuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both()
    theirs.pause_reading()
    piece = serialize(frames.DATA, ours.id, bytes(MAX_PAYLOAD_BYTES))

    for _ in range(WINDOW // MAX_PAYLOAD_BYTES):
        pair.driver.mux.receive(pair.driver.links[0], piece)
    assert their_reader.resets == []
    pair.driver.mux.receive(pair.driver.links[0], serialize(frames.DATA, ours.id, b"x"))
    pair.settle()

    assert their_reader.resets == [(Code.FLOW_CONTROL, "the peer exceeded the stream window")]
    assert our_reader.resets == [(Code.FLOW_CONTROL, "stream window exceeded")]
    assert pair.driver.budget.held_bytes == 0


def test_credit_beyond_any_sense_is_clamped() -> None:
    pair = MuxPair()
    ours, *_ = pair.open_both()
    huge = serialize(frames.WINDOW, ours.id, b"\xff" * 4)

    pair.kit.mux.receive(pair.kit.links[0], huge + huge)
    ours.write(b"fine")
    pair.settle()

    assert pair.driver.opened[ours.id][1].data == b"fine"


def half_closed_by_us(ours: Stream, theirs: Stream) -> None:
    ours.write_eof()


def half_closed_by_them(ours: Stream, theirs: Stream) -> None:
    theirs.write_eof()


def full(ours: Stream, theirs: Stream) -> None:
    theirs.pause_reading()
    ours.write(bytes(2 * WINDOW))


def ending(ours: Stream, theirs: Stream) -> None:
    full(ours, theirs)
    ours.write_eof()


def fresh(ours: Stream, theirs: Stream) -> None:
    """Nothing was sent yet."""


STATES = [fresh, half_closed_by_us, half_closed_by_them, full, ending]


@pytest.mark.parametrize("by_peer", [False, True], ids=["by us", "by the peer"])
@pytest.mark.parametrize("prepare", STATES, ids=lambda f: f.__name__)
def test_a_reset_ends_a_stream_in_every_state(
    prepare: Callable[[Stream, Stream], None], by_peer: bool
) -> None:
    pair = MuxPair()
    ours, our_reader, theirs, their_reader = pair.open_both()
    prepare(ours, theirs)
    pair.settle()

    resetting, told, silent = (
        (theirs, our_reader, their_reader) if by_peer else (ours, their_reader, our_reader)
    )
    resetting.reset(Code.CANCEL, "gone")
    resetting.reset(Code.CANCEL, "again")
    pair.settle()

    assert told.resets == [(Code.CANCEL, "gone")]
    assert silent.resets == []
    assert pair.kit.mux.open_streams == pair.driver.mux.open_streams == 0
    assert ours.queued_bytes == theirs.queued_bytes == 0
    assert not pair.kit.blocked
    assert not pair.driver.stalled
    for side in (pair.kit, pair.driver):
        assert (side.budget.committed_bytes, side.budget.held_bytes) == (0, 0)


def test_a_closed_stream_ignores_its_owner() -> None:
    pair = MuxPair()
    ours, *_ = pair.open_both()
    ours.reset(Code.CANCEL)
    pair.settle()

    ours.write(b"x")
    ours.write_eof()
    ours.pause_reading()
    ours.resume_reading()
    ours.reset(Code.CANCEL)

    assert types_on(pair.flush(pair.kit), ours) == []


def test_a_reason_is_cut_to_a_bearable_length() -> None:
    pair = MuxPair()
    ours, _, _, their_reader = pair.open_both()

    ours.reset(Code.INTERNAL, "é" * 5000)
    pair.settle()

    assert their_reader.resets == [(Code.INTERNAL, "é" * 512)]


@pytest.mark.parametrize("is_paused", [False, True], ids=["reading", "paused"])
def test_a_receiver_may_reset_while_it_takes_bytes(is_paused: bool) -> None:
    pair = MuxPair()
    ours, our_reader, theirs, _ = pair.open_both()

    class Refusing(Reader):
        def stream_data(self, data: bytes | memoryview) -> None:
            super().stream_data(data)
            if is_paused:
                theirs.pause_reading()
            theirs.reset(Code.CANCEL, "unwanted")

    theirs.receiver = Refusing()
    ours.write(bytes(WINDOW))
    pair.settle()

    assert our_reader.resets == [(Code.CANCEL, "unwanted")]
    assert not pair.driver.stalled
    assert (pair.driver.budget.committed_bytes, pair.driver.budget.held_bytes) == (0, 0)


def test_a_receiver_may_write_as_soon_as_it_may_go_on() -> None:
    pair = MuxPair()
    ours, _, theirs, their_reader = pair.open_both()

    class Refilling(Reader):
        refills = 3

        def stream_resume_writing(self) -> None:
            super().stream_resume_writing()
            if self.refills:
                self.refills -= 1
                ours.write(bytes(WINDOW))

    ours.receiver = Refilling()
    ours.write(bytes(WINDOW))
    ours.write(bytes(WINDOW))
    pair.settle()

    assert len(their_reader.data) == 5 * WINDOW
    assert theirs.queued_bytes == 0


def test_data_behind_the_end_of_its_sender_is_dropped() -> None:
    pair = MuxPair()
    ours, _, _, their_reader = pair.open_both()
    ours.write_eof()
    pair.settle()

    late = serialize(frames.DATA, ours.id, b"late") + serialize(frames.EOF, ours.id)
    pair.driver.mux.receive(pair.driver.links[0], late)

    assert (bytes(their_reader.data), their_reader.eofs) == (b"", 1)
