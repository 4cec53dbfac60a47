"""Copies of the state that can be carried away and put back.

A backup is one SQLite file with the content of `state.db` at one moment, taken while the server
runs. Captures are no part of it: they are a convenience that may be lost, and may be large. Nobody
ever sees half a file: copies are made under a temporary name, checked, synced and then renamed.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from moleport_server.errors import StoreError
from moleport_server.store.aside import free_name
from moleport_server.store.directory import DataDirectory
from moleport_server.store.failures import corrupt, translating
from moleport_server.store.schema import (
    beside,
    connect_for_reading,
    has_write_ahead_log,
    inspect,
    sqlite_uri,
    state_schema,
)


def backup(data_dir: Path, destination: Path, *, overwrite: bool = False) -> None:
    """Write the present state of a data directory to one file; a running server goes on.

    Holds tokens (digests of secrets, not secrets), leases, sessions and history, readable by its
    owner only; no captures. Blocks until the file is on disk.

    Args:
        data_dir: the directory of the server.
        destination: the file to write; its directory exists.
        overwrite: replace a file that exists.

    Raises:
        StoreError: there is no database, the destination exists, or a file cannot be used.
        StoreCorrupt: the database is damaged; nothing was written.
        StoreTooNew: a newer release wrote the database; nothing was written.
        StoreFull: there is no room for the copy; nothing was written.
    """
    state = DataDirectory(data_dir).state_path
    if not state.is_file():
        raise StoreError(f"there is no database in {data_dir}: no server ever used it")
    if destination.exists() and not overwrite:
        raise _exists(destination)
    with _new_file(destination) as copy:
        # Not `connect_for_reading`: a server may start at any moment and change the file.
        with translating(state), closing(_connect(state, "mode=ro")) as source:
            _copy(source, copy)
        _require_content(copy)
        with translating(destination):
            if overwrite:
                copy.replace(destination)
            else:
                _rename_to_new(copy, destination)
            _sync(destination.parent)


def restore(source: Path, data_dir: Path) -> Path | None:
    """Put a backup in the place of the state; the server must not run.

    Creates the data directory if there is none. Captures stay as they are. After a failure the
    previous state is in its place.

    Returns:
        Where the previous state is kept (`state.db.before-restore-20250131T235959Z`), None if there
        was none.

    Raises:
        StoreLocked: a server uses the data directory.
        StoreCorrupt: the backup is damaged or is none; nothing was changed.
        StoreTooNew: a newer release made the backup; nothing was changed.
        StoreFull: there is no room for both states; nothing was changed.
        StoreError: a file cannot be used.
    """
    if not source.is_file():
        raise StoreError(f"there is no file {source}")
    _require_content(source)
    with DataDirectory(data_dir) as directory:
        state = directory.state_path
        with _new_file(state) as copy:
            with translating(source), closing(connect_for_reading(source)) as reader:
                _copy(reader, copy)
            _require_content(copy)
            with translating(state):
                kept = _keep_previous(state) if state.exists() else None
                _drop_log(state)
                copy.replace(state)
                _sync(state.parent)
    return kept


def _require_content(path: Path) -> None:
    if inspect(path, state_schema()) == 0:
        raise corrupt(path, "it is empty")


@contextmanager
def _new_file(destination: Path) -> Iterator[Path]:
    """Make a file of a temporary name beside the destination; delete what is left of it."""
    with translating(destination.parent):
        handle, name = mkstemp(prefix=f".{destination.name}.", dir=destination.parent)
        os.close(handle)
    copy = Path(name)
    try:
        yield copy
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            beside(copy, suffix).unlink(missing_ok=True)


def _copy(source: sqlite3.Connection, copy: Path) -> None:
    with translating(copy), closing(_connect(copy, "mode=rw")) as target:
        # All pages in one step: one moment of the source, however much is written meanwhile.
        source.backup(target)
        # The copy has the source's mode, in which a database is more than one file.
        target.execute("PRAGMA journal_mode = DELETE")
    with translating(copy):
        _sync(copy)


def _keep_previous(state: Path) -> Path:
    """Copy the state aside, with the log of a server that crashed."""
    # As plain files: SQLite repairs what it opens, and may drop a log that it cannot read.
    kept = free_name(state, "before-restore")
    try:
        for suffix in ("", "-wal"):
            if beside(state, suffix).exists():
                shutil.copy2(beside(state, suffix), beside(kept, suffix))
                _sync(beside(kept, suffix))
    except BaseException:
        for suffix in ("", "-wal"):
            beside(kept, suffix).unlink(missing_ok=True)
        raise
    _sync(kept.parent)
    return kept


def _drop_log(state: Path) -> None:
    """Delete the log, which would be applied to the database that comes."""
    if has_write_ahead_log(state):
        # Merged first, as far as it is readable: a crash between here and the rename then leaves
        # all of the previous state in its place.
        with suppress(sqlite3.Error), closing(_connect(state, "mode=rw")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    beside(state, "-wal").unlink(missing_ok=True)
    beside(state, "-shm").unlink(missing_ok=True)


def _rename_to_new(copy: Path, destination: Path) -> None:
    try:
        # Unlike a rename, a link fails when somebody else was faster.
        destination.hardlink_to(copy)
    except FileExistsError as error:
        raise _exists(destination) from error
    except OSError:
        # Not every file system has links.
        copy.rename(destination)


def _exists(destination: Path) -> StoreError:
    return StoreError(f"{destination} exists; allow overwriting it, or choose another name")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(sqlite_uri(path, mode), uri=True, isolation_level=None)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
