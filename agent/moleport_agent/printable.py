"""Make foreign text safe to print: a visitor chooses paths, and a terminal obeys escape sequences.

Everything that is not plainly visible (controls, escapes, bidirectional marks, lone surrogates)
becomes a backslash escape, so that the text stays recognisable and can move no cursor.
"""

from typing import Final

LONGEST_TEXT: Final = 2048
"""Longer texts are cut: no terminal shows more of one path, and lines stay bounded."""


def printable(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return `text` without anything that a terminal would interpret, at most `limit` long."""
    if len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _escaped(ord(character)) for character in text
    )


def _escaped(code_point: int) -> str:
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    if code_point < 0x10000:
        return f"\\u{code_point:04x}"
    return f"\\U{code_point:08x}"
