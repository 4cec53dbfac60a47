"""What the doctor says about one thing it looked at."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """How one check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should know."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not looked at, because something before it failed."""


CHECKS: Final = (
    "settings",
    "proxy",
    "name resolution",
    "tcp",
    "tls",
    "http",
    "clock",
    "token",
    "websocket",
    "latency",
    "streaming",
)
"""All checks, in the order in which they happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    """One of `CHECKS`."""
    outcome: Outcome
    sentence: str
    remedy: str | None = None
    """What to do; there is always one when the check failed."""


def ok(check: str, sentence: str) -> Finding:
    """Say that a check passed."""
    return Finding(check=check, outcome=Outcome.OK, sentence=sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    """Say that a check passed with a doubt."""
    return Finding(check=check, outcome=Outcome.WARNING, sentence=sentence, remedy=remedy)


def failed(check: str, sentence: str, remedy: str) -> Finding:
    """Say that a check failed, and what to do."""
    return Finding(check=check, outcome=Outcome.FAILED, sentence=sentence, remedy=remedy)


def skipped(check: str, because: str) -> Finding:
    """Say that a check did not happen."""
    return Finding(check=check, outcome=Outcome.SKIPPED, sentence=f"not checked: {because} failed")
