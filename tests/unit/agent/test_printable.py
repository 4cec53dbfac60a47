import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_agent.printable import printable

CASES = {
    "plain": ("/a/b c?d=é", "/a/b c?d=é"),
    "escape sequence": ("/\x1b[2Jx", "/\\x1b[2Jx"),
    "line end": ("a\r\nb", "a\\x0d\\x0ab"),
    "eight bit control": ("\x9b31m", "\\x9b31m"),
    "right to left override": ("a\u202eb", "a\\u202eb"),
    "lone surrogate": ("\udcff", "\\udcff"),
    "unassigned plane": ("\U000e0001", "\\U000e0001"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_what_a_terminal_would_obey_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters(), max_size=200))
def test_nothing_that_comes_out_can_move_a_cursor(text: str) -> None:
    assert printable(text).isprintable()


def test_a_long_text_is_cut_visibly() -> None:
    assert printable("x" * 50, 10) == "x" * 9 + "…"
