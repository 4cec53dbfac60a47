import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.captures import make_capture
from moleport_server.capture.record import CaptureIds, IdSpace

prefixes = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**58 - 1)


@given(prefixes, numbers)
def test_an_id_is_a_version_8_uuid_that_parses_back(prefix: int, number: int) -> None:
    space = IdSpace(prefix)

    text = space.format(number)

    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, text)
    assert space.parse(text) == number


@given(prefixes, prefixes, numbers)
def test_an_id_belongs_to_one_space_only(prefix: int, other: int, number: int) -> None:
    parsed = IdSpace(other).parse(IdSpace(prefix).format(number))

    assert (parsed is None) == (prefix != other)


@given(st.text() | st.uuids().map(str))
def test_other_texts_are_no_ids(text: str) -> None:
    assert IdSpace(0x1234567890ABCDEF).parse(text) is None


@pytest.mark.parametrize(
    "spoil", [str.upper, lambda text: text.replace("-", ""), lambda text: f"{{{text}}}"]
)
def test_an_id_has_one_spelling(spoil) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    space = IdSpace(0xABCDEF)

    assert space.parse(spoil(space.format(1))) is None


def test_numbers_rise_from_one() -> None:
    space = IdSpace.random()

    assert [space.next() for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("prefix", [-1, 2**64])
def test_a_prefix_has_64_bits(prefix: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        IdSpace(prefix)


def test_a_capture_does_not_show_its_secrets() -> None:
    capture = make_capture(CaptureIds.random(), b"/?token=hunter2", request_body=b"hunter2")

    assert "hunter2" not in repr(capture)
