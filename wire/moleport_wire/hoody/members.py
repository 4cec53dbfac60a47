"""The members of a received JSON object, read with their types and bounds.

Strict where a wrong value could do harm later, deaf to members that it is not asked for: that is how
the protocol grows. Everything it refuses is a `RemoteProtocolError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody.frames import Code, Payload

MAX_TEXT: Final = 1024
"""Longest text accepted in any member but lists of rules; longer ones are an attack or a bug."""
MAX_INTEGER: Final = 2**53
"""Up to here every JSON library keeps integers exact."""

T = TypeVar("T")


def _violation(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(Code.PROTOCOL_ERROR, reason)


def _is_text(value: str) -> bool:
    """Tell whether it has a bearable length and no half of a surrogate pair.

    JSON can escape such halves; the text could then be neither compared nor logged nor stored.
    """
    if len(value) > MAX_TEXT:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


class Members:
    """The members of one received JSON object, read with their types."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        self._values = values

    @classmethod
    def parse(cls, name: str, payload: Payload) -> Members:
        """Parse a payload.

        Raises:
            RemoteProtocolError: it is not a JSON object in UTF-8.
        """
        try:
            # Decoded here, because json.loads would take UTF-16 and UTF-32 for granted as well.
            values = json.loads(str(payload, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise _violation(f"{name} is not JSON") from error
        if not isinstance(values, dict):
            raise _violation(f"{name} is not a JSON object")
        return cls(name, values)

    def _get(self, key: str, kind: type[T], *, required: bool) -> T | None:
        value = self._values.get(key)
        if value is None:
            if required:
                raise _violation(f"{self._name} lacks {key}")
            return None
        # bool is an int for Python, not for JSON.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _violation(f"{self._name}.{key} is not of type {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        """Return a required text."""
        value = self.optional_text(key)
        if value is None:
            raise _violation(f"{self._name} lacks {key}")
        return value

    def optional_text(self, key: str) -> str | None:
        """Return a text or None."""
        value = self._get(key, str, required=False)
        if value is not None and not _is_text(value):
            raise _violation(f"{self._name}.{key} is no text of at most {MAX_TEXT} characters")
        return value

    def long_text(self, key: str) -> str:
        """Return a required text that only its frame bounds."""
        value = self._get(key, str, required=True)
        if value is None or any("\ud800" <= character <= "\udfff" for character in value):
            raise _violation(f"{self._name}.{key} is no text")
        return value

    def integer(self, key: str, *, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Return a required integer within bounds."""
        value = self.optional_integer(key, low=low, high=high)
        if value is None:
            raise _violation(f"{self._name} lacks {key}")
        return value

    def optional_integer(self, key: str, *, low: int = 0, high: int = MAX_INTEGER) -> int | None:
        """Return an integer within bounds, or None."""
        value = self._get(key, int, required=False)
        if value is not None and not low <= value <= high:
            raise _violation(f"{self._name}.{key} is not within {low} and {high}")
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean, False if absent."""
        return bool(self._get(key, bool, required=False))

    def texts(self, key: str, *, limit: int = 256) -> tuple[str, ...] | None:
        """Return a list of texts, or None if absent."""
        values = self._get(key, list, required=False)
        if values is None:
            return None
        if len(values) > limit or not all(isinstance(v, str) and _is_text(v) for v in values):
            raise _violation(f"{self._name}.{key} is not a list of at most {limit} texts")
        return tuple(values)

    def objects(self, key: str, *, limit: int = 256) -> list[Members] | None:
        """Return a list of objects, or None if absent."""
        values = self._get(key, list, required=False)
        if values is None:
            return None
        if len(values) > limit or not all(isinstance(v, dict) for v in values):
            raise _violation(f"{self._name}.{key} is not a list of at most {limit} objects")
        return [Members(f"{self._name}.{key}", value) for value in values]

    def rows(self, key: str, kinds: tuple[type, ...], *, limit: int = 256) -> list[tuple[Any, ...]]:
        """Return a required list of arrays whose values have these types, and perhaps more."""
        values = self._get(key, list, required=True) or []
        if len(values) > limit or not all(
            isinstance(value, list)
            and len(value) >= len(kinds)
            and all(map(_is_cell, value, kinds))
            for value in values
        ):
            raise _violation(f"{self._name}.{key} is not a list of at most {limit} rows")
        return [tuple(value[: len(kinds)]) for value in values]

    def arrays(self, key: str, *, limit: int) -> list[list[Any]]:
        """Return a required list of arrays; what is in them is the caller's to check."""
        values = self._get(key, list, required=True) or []
        if len(values) > limit or not all(isinstance(value, list) for value in values):
            raise _violation(f"{self._name}.{key} is not a list of at most {limit} arrays")
        return values

    def object(self, key: str) -> Members | None:
        """Return an object, or None if absent."""
        value = self._get(key, dict, required=False)
        return None if value is None else Members(f"{self._name}.{key}", value)


def _is_cell(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and _is_text(value)
    kinds = (int, float) if kind is float else int
    # NaN is not within any bounds.
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
