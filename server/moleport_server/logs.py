"""What the server writes to standard error: text for people or JSON lines for collectors.

The only module that configures logging. Events have a constant text and fields (`extra=`); both
formats show all fields, in text as `key=value` behind the event. Requests of visitors go to a
logger of their own, `ACCESS_LOGGER`, whose format is a setting of its own and which is off by
default: ask `isEnabledFor(INFO)` once, not per request. Formats: `docs/reference/logs.md`.
"""

import json
import logging
import sys
import time
from datetime import datetime
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from moleport_server.config.settings import LogSettings

ACCESS_LOGGER = "moleport.access"

QUIET_LOGGERS = ("aiohttp.access", "aiohttp.server", "aiofastnet", "picows", "asyncio", "aiosqlite")
"""Libraries whose own events are about our peers' manners; only their warnings matter."""

_OFF = logging.CRITICAL + 10
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One line per event: UTC time, level, logger, event, fields; a traceback below, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters in it are escaped, so that nobody forges lines."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"{moment}.{int(record.msecs):03d}Z",
            f"{record.levelname:<7}",
            record.name,
            _printable(record.getMessage()),
        ]
        parts += [
            f"{name}={_value(value)}"
            for name, value in vars(record).items()
            if name not in _STANDARD_FIELDS
        ]
        line = " ".join(parts)
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_printable(part)}" for part in trace.splitlines())
        return line


class AccessTextFormatter(TextFormatter):
    """The same without level and logger, which are always the same here."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment, _, _, rest = super().format(record).split(maxsplit=3)
        return f"{moment} {rest}"


def configure(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Set up all loggers of this process; a second call replaces the first.

    Args:
        settings: levels and formats.
        stream: where to write; default: standard error.
    """
    root = logging.getLogger()
    root.setLevel(settings.level.upper())
    _replace_handlers(root, stream, _json() if settings.format == "json" else TextFormatter())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("aiohttp.server").filters[:] = [_is_ours]
    access = logging.getLogger(ACCESS_LOGGER)
    access.propagate = False
    access.setLevel(_OFF if settings.access == "off" else logging.INFO)
    formatter = _json() if settings.access == "json" else AccessTextFormatter()
    _replace_handlers(access, stream, formatter)


def _is_ours(record: logging.LogRecord) -> bool:
    """Drop what aiohttp logs as an error, with a traceback, for each malformed request.

    Strangers could fill the disk with it; they get a 400, and the call is counted.
    """
    # Whoever logs this has imported it; a server that starts has not, and visitors wait for it.
    from aiohttp.http_exceptions import HttpProcessingError  # noqa: PLC0415

    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _replace_handlers(
    logger: logging.Logger, stream: TextIO | None, formatter: logging.Formatter
) -> None:
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    logger.handlers[:] = [handler]


def _json() -> JsonFormatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_default=_json_value,
        json_ensure_ascii=False,
    )


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _value(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and text and not any(mark in text for mark in ' "=')
    return text if is_plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
