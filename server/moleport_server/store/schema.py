"""Which databases there are, how they came to be, and whether a file may be opened at all.

A schema is a folder of numbered SQL files; `user_version` counts those that were applied and
`application_id` tells our files from those of other programs. `inspect` answers before anything
opens the file for writing: SQLite may recover or checkpoint a database merely because a connection
closes, and a file that we refuse has to stay byte for byte what it was.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from moleport_server.errors import StoreCorrupt, StoreTooNew
from moleport_server.store.failures import corrupt, translating


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One kind of database and the way to its newest version."""

    name: str
    """The folder below `migrations`."""
    application_id: int
    """Written into the file; four letters, so that `file` and people recognise it."""
    migrations: tuple[str, ...]
    """SQL scripts; the first makes version 1."""

    @property
    def version(self) -> int:
        """The version that this release writes."""
        return len(self.migrations)


def load_schema(name: str, application_id: bytes) -> Schema:
    """Return the schema whose scripts are packaged in `migrations/<name>`."""
    folder = files("moleport_server.store").joinpath("migrations", name)
    scripts = sorted((entry.name, entry) for entry in folder.iterdir())
    return Schema(
        name=name,
        application_id=int.from_bytes(application_id, "big"),
        migrations=tuple(entry.read_text(encoding="utf-8") for _, entry in scripts),
    )


def state_schema() -> Schema:
    """Return the schema of `state.db`."""
    return load_schema("state", b"MLPS")


def captures_schema() -> Schema:
    """Return the schema of `captures.db`."""
    return load_schema("captures", b"MLPC")


def create_or_inspect(path: Path, schema: Schema) -> None:
    """Create an empty file that only its owner may read, or check the one that is there.

    Raises:
        StoreCorrupt: the file is damaged, no database, or that of another program.
        StoreTooNew: a newer release wrote it.
        StoreError: it cannot be created or read.
    """
    with translating(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            inspect(path, schema)


def inspect(path: Path, schema: Schema) -> int:
    """Return the version of the database at `path` (0: empty) without changing a byte of it.

    Blocks for as long as SQLite's `quick_check` reads the file. The caller makes sure that no
    server uses it, or that a database which changes meanwhile does no harm.

    Raises:
        StoreCorrupt: the file is damaged, no database, or that of another program.
        StoreTooNew: a newer release wrote it.
        StoreError: it cannot be read.
    """
    with translating(path):
        if path.stat().st_size == 0:
            # SQLite would drop the log beside an empty file and call the result a new database.
            if has_write_ahead_log(path):
                raise corrupt(path, "it is empty, but has a write-ahead log")
            return 0
        with closing(connect_for_reading(path)) as connection:
            findings = [text for (text,) in connection.execute("PRAGMA quick_check(1)")]
            if findings != ["ok"]:
                raise corrupt(path, findings[0] if findings else "no answer to quick_check")
            application_id = _number(connection, "PRAGMA application_id")
            version = _number(connection, "PRAGMA user_version")
            tables = _number(connection, "SELECT COUNT(*) FROM sqlite_schema")
    if not version and not application_id and not tables:
        return 0
    if application_id != schema.application_id:
        raise StoreCorrupt(
            f"{path} is not a {schema.name} database of moleport; it was left as it is. "
            "Choose another data directory, or move the file away"
        )
    if version > schema.version:
        raise StoreTooNew(
            f"{path} has version {version} and this release knows up to {schema.version}; "
            "it was left as it is. Run the newer release again, "
            "or restore a backup that this release made"
        )
    return version


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open a database at rest without leaving a trace; the caller closes the connection.

    Without a write-ahead log the file is all there is, and SQLite is told that nobody changes it:
    a plain read-only connection would leave an empty log and an index file behind.
    """
    mode = "mode=ro" if has_write_ahead_log(path) else "immutable=1"
    return sqlite3.connect(sqlite_uri(path, mode), uri=True)


def sqlite_uri(path: Path, mode: str) -> str:
    """Return the name by which SQLite opens exactly this file, whatever characters it has."""
    return f"{path.absolute().as_uri()}?{mode}"


def has_write_ahead_log(path: Path) -> bool:
    """Return whether transactions wait in the log beside the database."""
    log = beside(path, "-wal")
    return log.exists() and log.stat().st_size > 0


def beside(path: Path, suffix: str) -> Path:
    """Return the path of the file that SQLite keeps beside `path` (`-wal`, `-shm`)."""
    return path.with_name(path.name + suffix)


def _number(connection: sqlite3.Connection, sql: str) -> int:
    (value,) = connection.execute(sql).fetchone()
    return int(value)
