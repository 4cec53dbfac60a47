"""Durations, quantities and timestamps, as Kubernetes writes them.

The schema of the resources has let only well-formed texts in; these functions still say what is
wrong, because an object may have been stored under an older schema.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from moleport_operator.errors import InvalidResource

_UNITS: Final = {"h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:[0-9]{1,6}[hms]){1,3}")
_DURATION_PART: Final = re.compile(r"([0-9]+)([hms])")
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS: Final = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def parse_duration(text: str) -> int:
    """Return the seconds of a duration such as `1h30m`.

    Raises:
        InvalidResource: it is no such duration.
    """
    if not _DURATION.fullmatch(text):
        raise InvalidResource(f"{text!r} is no duration; write hours, minutes or seconds: 1h30m")
    return sum(int(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text))


def parse_quantity(value: int | str) -> int:
    """Return the whole number of a quantity such as `10Mi`; fractions are cut.

    Raises:
        InvalidResource: it is no such quantity.
    """
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise InvalidResource(f"{value!r} is no quantity; write a number with a unit: 10Mi")
    number, unit = match.groups()
    return int(float(number) * _FACTORS[unit]) if "." in number else int(number) * _FACTORS[unit]


def parse_time(text: str) -> int:
    """Return the Unix seconds of an RFC 3339 time; fractions are cut.

    Raises:
        InvalidResource: it is no such time.
    """
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise InvalidResource(f"{text!r} is no time; write 2026-01-31T12:00:00Z") from error


def parse_time_or_none(text: str | None) -> int | None:
    """Return the Unix seconds, or None for None and the empty text.

    Raises:
        InvalidResource: as `parse_time`.
    """
    return parse_time(text) if text else None


def format_time(seconds: float) -> str:
    """Return whole Unix seconds as RFC 3339 text in UTC, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time_or_none(seconds: float | None) -> str | None:
    """Return the text, or None for None."""
    return None if seconds is None else format_time(seconds)
