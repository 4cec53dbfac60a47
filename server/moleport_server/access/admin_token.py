"""The admin token: from a setting or from a file that is read again when it changes.

A mounted Secret is exchanged by renaming a link, and editors truncate before they write, so an
empty or unreadable file never replaces a token that works: the last good one stays in force.
"""

import logging
from pathlib import Path
from typing import Final

from moleport_server.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 4096
"""No token is longer; a file that is was given by mistake."""

_Stamp = tuple[int, int, int]


class AdminToken:
    """Knows the admin token of this moment.

    Give the value or the file. The file is looked at on each `read`, which costs one `stat`.

    Raises:
        ConfigError: neither or both are given, the value is blank, or the file holds no token now.
    """

    def __init__(self, value: str | None = None, *, path: Path | None = None) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        if (value is None) == (path is None):
            raise ConfigError(["auth: give either admin_token or admin_token_file"])
        if path is not None:
            try:
                self._stamp, value = _stamp(path), _read(path)
            except (OSError, ValueError) as error:
                raise ConfigError([f"auth.admin_token_file: {path}: {_reason(error)}"]) from error
        elif value is None or not value.strip():
            raise ConfigError(["auth.admin_token: must not be empty"])
        self._value = value

    def __repr__(self) -> str:
        return "AdminToken(***)"

    def read(self) -> str:
        """Return the token; never empty."""
        if self._path is not None:
            self._refresh(self._path)
        return self._value

    def _refresh(self, path: Path) -> None:
        known = self._stamp
        try:
            # Kept even if reading fails: a broken file is reported once, not at each login.
            self._stamp = None
            self._stamp = _stamp(path)
            if self._stamp != known:
                self._value = _read(path)
                logger.info("admin token read again", extra={"path": str(path)})
        except (OSError, ValueError) as error:
            if self._stamp != known:
                logger.warning(
                    "admin token file unusable, the last token stays in force",
                    extra={"path": str(path), "reason": _reason(error)},
                )


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    try:
        token = raw.decode().strip()
    except UnicodeDecodeError:
        # Its text would quote the bytes.
        raise ValueError("not UTF-8 text") from None
    if not token:
        raise ValueError("empty")
    return token


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "unreadable") if isinstance(error, OSError) else str(error)
