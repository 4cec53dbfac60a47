import pytest

from moleport_server.agents.hoody.heads import (
    CONNECTION_FIELDS,
    answer_head,
    joined_fields,
    switch_framing,
    text_fields,
    text_of,
)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (418, b"HTTP/1.1 418 I'm a Teapot\r\n"),
        (599, b"HTTP/1.1 599 \r\n"),
    ],
)
def test_every_status_has_a_line(status: int, line: bytes) -> None:
    assert answer_head(status, (), b"") == line + b"\r\n"


@pytest.mark.parametrize("name", sorted(CONNECTION_FIELDS))
def test_fields_of_a_connection_do_not_pass(name: str) -> None:
    head = answer_head(200, ((name.title(), "x"), ("A", "b")), b"Connection: close\r\n")

    assert head == b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "octets"), [("ü", b"\xfc"), ("€", b"\xe2\x82\xac"), ("\ud800", b"?")]
)
def test_a_value_is_latin_1_if_it_can_be(value: str, octets: bytes) -> None:
    assert answer_head(200, (("A", value),), b"").splitlines()[1] == b"A: " + octets


@pytest.mark.parametrize(("octets", "text"), [(b"\xc3\xbc", "ü"), (b"\xfc", "ü"), (b"a", "a")])
def test_bytes_are_utf_8_if_they_can_be(octets: bytes, text: str) -> None:
    assert text_of(octets) == text


@pytest.mark.parametrize(
    ("fields", "protocol"), [((("Upgrade", "h2c"),), b"h2c"), ((), b"websocket")]
)
def test_a_switch_names_its_protocol(fields: tuple[tuple[str, str], ...], protocol: bytes) -> None:
    assert switch_framing(fields) == b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"


def test_repeated_fields_stay_apart_but_on_an_upgrade() -> None:
    fields = [(b"cookie", b"a"), (b"accept", b"x"), (b"cookie", b"b"), (b"accept", b"y")]

    assert text_fields(fields) == (
        ("cookie", "a"),
        ("accept", "x"),
        ("cookie", "b"),
        ("accept", "y"),
    )
    assert joined_fields(fields) == (("cookie", "a; b"), ("accept", "x, y"))
