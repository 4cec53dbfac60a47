"""The agent's log: warnings by default, everything with `--verbose`, on standard error.

The only module that configures logging. With the live view the lines go into it, because a line
written over a picture destroys both.
"""

import logging
import sys
from collections.abc import Callable
from typing import Final

LOGGERS: Final = ("moleport_agent", "moleport_wire")


class _CallHandler(logging.Handler):
    """Gives each formatted line to a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:  # noqa: BLE001 - logging's own contract: report, never raise
            self.handleError(record)


def configure(level: int, write: Callable[[str], None] | None = None) -> None:
    """Send the agent's log to `write`, or to standard error.

    Args:
        level: the least level that shows.
        write: takes one line; must not wait.
    """
    handler: logging.Handler
    if write is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        handler = _CallHandler(write)
        handler.setFormatter(logging.Formatter("%(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
