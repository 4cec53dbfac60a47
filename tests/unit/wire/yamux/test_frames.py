import pytest

from helpers.yamux_pair import Frame, frames_of
from moleport_wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_MESSAGE_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Batch,
    GoAwayCode,
    serialize,
)

FRAMES = [
    pytest.param(
        serialize(DATA, SYN, 1, body=b"hi"), "000000010000000100000002" + "6869", id="SYN"
    ),
    pytest.param(serialize(DATA, ACK | FIN, 3), "000000060000000300000000", id="ACK and FIN"),
    pytest.param(serialize(DATA, RST, 5), "000000080000000500000000", id="RST"),
    pytest.param(serialize(WINDOW_UPDATE, 0, 7, 1 << 20), "000100000000000700100000", id="credit"),
    pytest.param(serialize(PING, SYN, 0, 0xDEADBEEF), "0002000100000000deadbeef", id="PING"),
    pytest.param(
        serialize(GO_AWAY, 0, 0, GoAwayCode.INTERNAL_ERROR),
        "000300000000000000000002",
        id="GO_AWAY",
    ),
    pytest.param(serialize(DATA, 0, 2**32 - 1), "00000000ffffffff00000000", id="last id"),
]


@pytest.mark.parametrize(("frame", "expected"), FRAMES)
def test_a_frame_has_these_bytes(frame: bytes, expected: str) -> None:
    assert frame.hex() == expected


def test_a_batch_keeps_order_and_joins_what_fits_into_one_message() -> None:
    batch = Batch()
    batch.append(SYN, 1, b"id")
    batch.append_header(WINDOW_UPDATE, 0, 3, 99)
    batch.append(0, 1, memoryview(b"body"))

    assert (batch.frames, batch.size) == (3, 3 * HEADER_BYTES + 6)
    messages = batch.take()

    assert len(messages) == 1
    assert frames_of(messages) == [
        Frame(DATA, SYN, 1, 2, b"id"),
        Frame(WINDOW_UPDATE, 0, 3, 99),
        Frame(DATA, 0, 1, 4, b"body"),
    ]


def test_a_batch_that_was_taken_is_empty_and_yields_no_message() -> None:
    batch = Batch()
    batch.append(0, 1, b"x")
    batch.take()

    assert (batch.frames, batch.size) == (0, 0)
    assert batch.take() == []


def test_messages_hold_whole_frames_and_stay_below_the_limit() -> None:
    batch = Batch()
    bodies = [bytes([n]) * MAX_BODY_BYTES for n in range(9)]
    for body in bodies:
        batch.append(0, 1, body)

    messages = batch.take()

    assert [len(frames_of([message])) for message in messages] == [3, 3, 3]
    assert [frame.body for frame in frames_of(messages)] == bodies


def test_a_message_may_be_exactly_as_long_as_the_limit() -> None:
    batch = Batch()
    count = MAX_MESSAGE_BYTES // HEADER_BYTES
    for _ in range(count + 1):
        batch.append_header(PING, ACK, 0, 1)

    assert [len(message) // HEADER_BYTES for message in batch.take()] == [count, 1]
