"""The rules of messages, as the stock drivers enforce them."""

import pytest

from helpers.doubles.hoody_frames import (
    MAX_FRAMES,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    BadMessage,
    Batch,
    Frame,
    Type,
    decode,
)
from helpers.doubles.hoody_mischief import MESSAGES

FULL = Frame(Type.DATA, 7, bytes(MAX_PAYLOAD_BYTES))


def test_frames_survive_a_message() -> None:
    frames = [Frame(Type.EOF, 2), Frame(Type.DATA, 4, b"x"), FULL]

    assert decode(b"".join(frame.encode() for frame in frames)) == frames


@pytest.mark.parametrize(
    "name",
    [
        *("empty-message", "frames-65", "oversize-message", "oversize-frame", "short-header"),
        *("truncated", "endless-length", "type-high", "type-gap"),
    ],
)
def test_a_bad_message_is_bad_as_a_whole(name: str) -> None:
    with pytest.raises(BadMessage):
        decode(MESSAGES[name])


def test_unknown_optional_frames_are_skipped_and_count() -> None:
    optional = Frame(0x7F, 0, b"?").encode()

    assert decode(optional + Frame(Type.EOF, 2).encode()) == [Frame(Type.EOF, 2)]
    with pytest.raises(BadMessage, match="64"):
        decode(optional * (MAX_FRAMES + 1))


def test_four_full_frames_do_not_share_a_message() -> None:
    batch = Batch()

    messages = [batch.add(FULL) for _ in range(4)]
    messages.append(batch.take())

    assert [len(each) // FULL.size for each in messages if each] == [3, 1]
    assert 4 * FULL.size > MAX_MESSAGE_BYTES
