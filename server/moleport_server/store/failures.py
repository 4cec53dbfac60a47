"""What went wrong, in the words of the store: SQLite and the file system, translated once.

Every adapter of this package lets foreign exceptions pass through `translating`, so that callers
meet `StoreError` and its kinds only and can tell «make room» from «restore a backup» from «look at
the log». The texts name files and never values.
"""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moleport_server.errors import InvalidRequest, StoreCorrupt, StoreError, StoreFull

_NO_ROOM_BYTES = 64 * 1024
"""Below this an I/O error is taken for a full disk: SQLite grows its shared-memory index by 32 KiB
at a time and reports a failure to do so as an I/O error, not as SQLITE_FULL."""


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the operating system about `path` into store errors.

    Raises:
        StoreFull: there is no room; nothing was written.
        StoreCorrupt: the file is damaged or is no database.
        StoreError: anything else that SQLite or the operating system refuses.
        InvalidRequest: a text is not valid Unicode (a lone surrogate), which SQLite cannot keep.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest("a text is not valid Unicode and cannot be stored") from error
    except (sqlite3.Error, OSError) as error:
        raise store_error(error, path) from error


def store_error(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """Return the store error that tells what `error` means for the file `path`."""
    if isinstance(error, OSError):
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _full(path)
        return StoreError(f"{path}: {error.strerror or type(error).__name__}")
    # Errors that the sqlite3 module raises by itself carry no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _has_no_room(path)):
        return _full(path)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return corrupt(path, str(error))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError(f"{path} is locked by another process")
    return StoreError(f"{path}: {error}")


def corrupt(path: Path, finding: str) -> StoreCorrupt:
    """Return the error for a damaged file, with what to do about it."""
    return StoreCorrupt(
        f"{path} is damaged ({finding}); it was left as it is. "
        "Restore a backup with `moleport-server restore`, or move the file away to begin anew"
    )


def _full(path: Path) -> StoreFull:
    return StoreFull(f"no room on the disk of {path}; nothing was written")


def _has_no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _NO_ROOM_BYTES
    except OSError:
        return False
