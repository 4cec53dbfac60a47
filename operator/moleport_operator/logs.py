"""What the operator writes to standard error: JSON lines for collectors, or text for people.

The only module that configures logging. kopf and aiohttp are held to their warnings: kopf repeats bodies of
resources in its debug output, and nothing of ours is in them that its readers do not know.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

from pythonjsonlogger.json import JsonFormatter

QUIET_LOGGERS: Final = ("kopf", "aiohttp", "asyncio")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """Level, event and fields on one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Return the line, with the fields of `extra` behind the event."""
        fields = (
            f"{name}={value!r}" for name, value in vars(record).items() if name not in _STANDARD
        )
        return " ".join((super().formatMessage(record), *fields))


def configure(level: str, style: str, *, stream: TextIO | None = None) -> None:
    """Set up logging of this process; a second call replaces the first.

    Args:
        level: debug, info, warning or error.
        style: json or text.
        stream: where to write; default: standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_json() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # It warns of its thread without signals at each start; `app.py` has them.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


def _json() -> JsonFormatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_ensure_ascii=False,
    )
