"""Which public name or port each tunnel had last, so that it comes back after a restart of the agent.

A small JSON file of the user's state directory. What it says is a wish: the server gives another name
when the remembered one is another's now. Losing the file loses nothing but the wish, so every problem
with it is logged and forgotten.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

KEPT_NAMES: Final = 256
"""The most recently used ones; more would be a list of everything that was ever tried."""
MAX_FILE_BYTES: Final = 256 * 1024


class NameMemory:
    """Remembers names by server, protocol and target.

    Args:
        path: the file; None remembers nothing beyond this process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def recall(self, key: str) -> str | None:
        """Return the last name or port of a tunnel, or None."""
        return self._read().get(key)

    def remember(self, key: str, address: str) -> None:
        """Note the name or port that a tunnel has now."""
        names = self._read()
        if next(reversed(names), None) == key and names[key] == address:
            return
        names.pop(key, None)
        names[key] = address
        for old in list(names)[:-KEPT_NAMES]:
            del names[old]
        self._write(names)

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            if self._path.stat().st_size > MAX_FILE_BYTES:
                return {}
            names = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.info("remembered names cannot be read", extra={"error": str(error)})
            return {}
        if not isinstance(names, dict):
            return {}
        return {k: v for k, v in names.items() if isinstance(k, str) and isinstance(v, str)}

    def _write(self, names: dict[str, str]) -> None:
        path = self._path
        if path is None:
            return
        # Beside the file and renamed, so that a crash leaves the old or the new one.
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(names, indent=1), "utf-8")
            temporary.replace(path)
        except OSError as error:
            logger.info("names cannot be remembered", extra={"error": str(error)})
