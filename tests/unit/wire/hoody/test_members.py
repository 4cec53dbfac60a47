import pytest

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.members import MAX_TEXT, Members


def members(text: str) -> Members:
    return Members.parse("HELLO", text.encode())


def test_what_is_absent_or_null_has_its_default() -> None:
    for m in (members("{}"), members('{"x":null}')):
        assert m.optional_text("x") is None
        assert m.optional_integer("x") is None
        assert m.flag("x") is False
        assert m.texts("x") is None
        assert m.objects("x") is None
        assert m.object("x") is None


def test_an_error_names_the_member_and_where_it_is() -> None:
    m = members('{"resume":{"sessionId":5},"binds":[{}]}')
    resume, binds = m.object("resume"), m.objects("binds")
    assert resume is not None
    assert binds is not None

    with pytest.raises(RemoteProtocolError, match=r"HELLO\.resume\.sessionId is not of type str"):
        resume.text("sessionId")
    with pytest.raises(RemoteProtocolError, match=r"HELLO\.binds lacks bindId"):
        binds[0].integer("bindId")
    with pytest.raises(RemoteProtocolError, match="HELLO lacks rows"):
        m.rows("rows", (int,))


def test_values_at_their_bounds_are_read() -> None:
    text = "é" * MAX_TEXT
    m = members(f'{{"t":"{text}","n":9007199254740992,"z":0,"e":"","l":[]}}')

    assert m.text("t") == text
    assert m.integer("n") == 2**53
    assert m.integer("z") == 0
    assert m.text("e") == ""
    assert m.texts("l") == ()
    assert m.objects("l") == []


def test_the_last_of_two_equal_names_counts() -> None:
    assert members('{"a":1,"a":2}').integer("a") == 2


def test_whole_surrogate_pairs_are_text_and_halves_are_not() -> None:
    m = members(r'{"pair":"\ud83d\ude00","half":"\ud83d"}')

    assert m.text("pair") == "\U0001f600"
    with pytest.raises(RemoteProtocolError, match="half is no text"):
        m.text("half")


def test_rows_may_have_more_cells_than_are_known() -> None:
    m = members('{"rows":[[1,2,"x"],[1,2.5,"y",true]]}')

    assert m.rows("rows", (int, float, str)) == [(1, 2, "x"), (1, 2.5, "y")]
