import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import (
    HEADER_BYTES,
    KNOWN_TYPES,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_FRAMES,
    MAX_PAYLOAD_BYTES,
    SKIPPED_TYPES,
    Code,
    MessageBatch,
    divide,
    parse,
    serialize,
)

Frame = tuple[int, int, bytes]
FULL = b"x" * MAX_PAYLOAD_BYTES

ROWS = [
    pytest.param((frames.HELLO, 0, b"{}"), "01 00000000 00000002 7b7d", id="HELLO"),
    pytest.param((frames.DATA, 2, b"abc"), "12 00000002 00000003 616263", id="DATA"),
    pytest.param((frames.DATA, 2, b""), "12 00000002 00000000", id="empty DATA"),
    pytest.param((frames.EOF, 2**32 - 1, b""), "13 ffffffff 00000000", id="EOF of the last id"),
    pytest.param((frames.RESET, 7, b"\0\x07bye"), "14 00000007 00000005 0007627965", id="RESET"),
    pytest.param((frames.WINDOW, 0, b"\0\1\0\0"), "15 00000000 00000004 00010000", id="WINDOW"),
    pytest.param((frames.PING, 0, bytes(8)), "20 00000000 00000008 0000000000000000", id="PING"),
    pytest.param((frames.DRAIN, 0, b"{}"), "44 00000000 00000002 7b7d", id="DRAIN"),
    pytest.param((0x7F, 9, b"?"), "7f 00000009 00000001 3f", id="unknown but skippable"),
]
VALID_TYPES = sorted(KNOWN_TYPES | set(SKIPPED_TYPES))


def read(message: bytes) -> list[Frame]:
    return [(kind, stream_id, bytes(payload)) for kind, stream_id, payload in parse(message)]


@pytest.mark.parametrize(("frame", "text"), ROWS)
def test_a_frame_is_serialized_and_parsed_byte_by_byte_as_specified(
    frame: Frame, text: str
) -> None:
    message = bytes.fromhex(text)

    assert serialize(*frame) == message
    assert read(message) == [frame]
    assert read(message + message) == [frame, frame]


@pytest.mark.parametrize(("frame", "text"), ROWS)
def test_a_frame_that_is_cut_anywhere_is_refused(frame: Frame, text: str) -> None:
    message = bytes.fromhex(text)

    for length in range(1, len(message)):
        with pytest.raises(RemoteProtocolError, match="truncated") as caught:
            read(message[:length])
        assert caught.value.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize(("frame", "text"), ROWS)
def test_a_trailing_byte_is_the_beginning_of_another_frame(frame: Frame, text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="truncated frame header"):
        read(bytes.fromhex(text) + b"\x12")


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        pytest.param(b"", Code.PROTOCOL_ERROR, "empty", id="empty"),
        pytest.param(
            serialize(0x12, 2, FULL) * 4, Code.FRAME_SIZE, "262180 bytes", id="four full frames"
        ),
        pytest.param(
            frames.HEADER.pack(0x12, 2, MAX_PAYLOAD_BYTES + 1) + FULL + b"x",
            Code.FRAME_SIZE,
            "payload of 65537",
            id="oversize frame",
        ),
        pytest.param(
            frames.HEADER.pack(0x12, 2, 2**32 - 1), Code.FRAME_SIZE, "4294967295", id="huge length"
        ),
        pytest.param(serialize(0x13, 2) * 65, Code.PROTOCOL_ERROR, "more than 64", id="65 frames"),
        pytest.param(
            serialize(0x7F, 0) * 65, Code.PROTOCOL_ERROR, "more than 64", id="65 skippable frames"
        ),
    ],
)
def test_a_message_beyond_a_limit_is_refused_with_its_code(
    message: bytes, code: Code, reason: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        read(message)

    assert caught.value.code == code


def test_messages_at_the_limits_are_read() -> None:
    assert len(read(serialize(0x13, 2) * 64)) == 64
    largest = serialize(0x12, 2, FULL) * 3
    rest = MAX_MESSAGE_BYTES - len(largest) - HEADER_BYTES
    assert [len(p) for _, _, p in read(largest + serialize(0x12, 4, b"x" * rest))] == [
        *[MAX_PAYLOAD_BYTES] * 3,
        rest,
    ]


@pytest.mark.parametrize("frame_type", range(256))
def test_a_type_is_known_or_skippable_or_refused(frame_type: int) -> None:
    message = serialize(frame_type, 3, b"p")

    if frame_type in KNOWN_TYPES or 0x40 <= frame_type < 0x80:
        assert read(message) == [(frame_type, 3, b"p")]
    else:
        with pytest.raises(RemoteProtocolError, match=f"unknown frame type 0x{frame_type:02x}"):
            read(message)


@given(st.binary(max_size=400))
def test_garbage_is_read_or_refused_and_nothing_else(message: bytes) -> None:
    try:
        found = read(message)
    except RemoteProtocolError:
        return
    assert b"".join(serialize(*frame) for frame in found) == message


FRAMES = st.lists(
    st.tuples(
        st.sampled_from(VALID_TYPES),
        st.integers(0, 2**32 - 1),
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([0, 1, 4095, 4096, 60_000, MAX_PAYLOAD_BYTES]).map(bytes),
        ),
    ),
    max_size=150,
)


@given(FRAMES)
def test_a_batch_is_cut_into_legal_messages_that_hold_the_same_frames(
    wanted: list[Frame],
) -> None:
    batch = MessageBatch()
    for frame in wanted:
        batch.append(*frame)
    assert batch.size == sum(len(payload) + HEADER_BYTES for _, _, payload in wanted)

    due = batch.take()

    assert [frame for message in due for frame in read(message)] == wanted
    assert all(0 < len(message) <= MAX_MESSAGE_BYTES for message in due)
    assert all(len(read(message)) <= MAX_MESSAGE_FRAMES for message in due)
    assert batch.size == 0
    assert batch.take() == []


def test_four_full_frames_are_two_messages() -> None:
    batch = MessageBatch()
    for _ in range(4):
        batch.append(frames.DATA, 2, FULL)

    assert [len(read(message)) for message in batch.take()] == [3, 1]


def test_large_payloads_are_views_and_small_ones_are_copies() -> None:
    message = serialize(0x12, 2, FULL) + serialize(0x12, 2, b"small")

    large, small = (payload for _, _, payload in parse(message))

    # A view of a small payload would keep the whole message alive for as long as a reader stalls.
    assert isinstance(large, memoryview)
    assert isinstance(small, bytes)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(VALID_TYPES),
            st.integers(0, 9),
            st.integers(0, 9000).map(bytes),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_message_is_cut_into_messages_that_hold_the_same_frames(sent: list[Frame]) -> None:
    message = b"".join(serialize(*frame) for frame in sent)

    pieces = divide(memoryview(message))

    assert b"".join(pieces) == message
    assert [frame for piece in pieces for frame in read(piece)] == sent


def test_who_keeps_a_large_payload_of_a_cut_message_keeps_little_else() -> None:
    small = serialize(frames.WINDOW, 4, bytes(4))
    large = serialize(frames.DATA, 2, FULL)

    pieces = divide(memoryview(small + large + large + small + small))

    assert pieces == [small + large, large, small + small]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(serialize(frames.DATA, 2, FULL) * 2 + b"\x12", id="a frame is cut off"),
        pytest.param(serialize(frames.DATA, 2, FULL)[:-1], id="a payload is cut off"),
        pytest.param(
            serialize(frames.DATA, 2, bytes(500)) * (MAX_MESSAGE_FRAMES + 1), id="too many frames"
        ),
        pytest.param(
            serialize(frames.HELLO, 0, b"{}") + serialize(frames.DATA, 2, FULL), id="a greeting"
        ),
        pytest.param(serialize(0x50, 0, FULL) * 4, id="too large as a whole"),
    ],
)
def test_a_message_whose_whole_tells_a_fault_is_not_divided(message: bytes) -> None:
    assert divide(memoryview(message)) == [message]
