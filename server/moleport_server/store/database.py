"""One SQLite file, its only writing connection, and transactions that survive cancellation.

Every statement runs on the connection's own thread, in the order in which it was asked for. That
order is what makes cancellation safe: a caller that is cancelled leaves its statement in the queue
and a ROLLBACK right behind it, so the next transaction always finds the connection clean, and a
transaction is applied wholly or not at all. Other processes only read (backups), which WAL allows
at any time.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import aiosqlite

from moleport_server.errors import StoreError
from moleport_server.store.failures import translating
from moleport_server.store.schema import Schema, create_or_inspect, sqlite_uri

logger = logging.getLogger(__name__)

_DEADLINE_SECONDS = 30.0
"""For a transaction with its wait for the ones before it: longer than a disk that hiccups, shorter
than people wait."""
_ROLLBACK_SECONDS = 0.25
"""How long to watch a rollback; it is in the queue and takes place in any case."""
_BUSY_MILLISECONDS = 5_000
_LOG_LIMIT_BYTES = 8 * 1024 * 1024
"""The write-ahead log is cut back to this once a long reader (a backup) let it grow."""

Synchronous = Literal["FULL", "NORMAL"]
"""FULL: a commit has reached the disk. NORMAL: the last commits may be lost with the power."""


class Database:
    """A SQLite database that belongs to this process; made by `open`, ended by `aclose`."""

    def __init__(
        self, connection: aiosqlite.Connection, path: Path, *, deadline_seconds: float
    ) -> None:
        self.path = path
        self._connection = connection
        self._deadline_seconds = deadline_seconds
        self._lock = asyncio.Lock()
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        schema: Schema,
        *,
        synchronous: Synchronous,
        deadline_seconds: float = _DEADLINE_SECONDS,
    ) -> Self:
        """Open or create the database and bring it to the version of this release.

        The caller holds the lock of the data directory and closes the database.

        Args:
            path: the file; its directory exists.
            schema: what kind of database it has to be.
            synchronous: how durable a commit is.
            deadline_seconds: bound of each transaction, waiting included.

        Raises:
            StoreCorrupt: the file is damaged or not ours; it is untouched.
            StoreTooNew: a newer release wrote it; it is untouched.
            StoreFull: there is no room for a new file or a migration.
            StoreError: it cannot be opened.
        """
        with translating(path):
            await asyncio.to_thread(create_or_inspect, path, schema)
            connection = await aiosqlite.connect(
                sqlite_uri(path, "mode=rw"), uri=True, isolation_level=None
            )
            try:
                await _configure(connection, path, synchronous)
                await _migrate(connection, path, schema)
                # Only now: a migration may have to rebuild a table that others refer to.
                await connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                await connection.close()
                raise
        connection.row_factory = sqlite3.Row
        return cls(connection, path, deadline_seconds=deadline_seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Run the body as one transaction; an exception or a cancellation undoes all of it.

        Transactions wait for each other in the order of their calls. The body awaits nothing but
        the connection, and fetches its rows completely.

        Raises:
            StoreFull: no room; nothing was written.
            StoreCorrupt: SQLite met a damaged page.
            StoreError: the database is closed, refused the statement, or did not answer within the
                deadline (then the transaction may still take effect).
        """
        async with self._exclusive() as connection:
            try:
                await connection.execute("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
            except BaseException:
                await self._roll_back()
                raise

    async def release_free_pages(self) -> None:
        """Give pages of deleted rows back to the file system (needs auto_vacuum = INCREMENTAL).

        Raises:
            StoreError: as for `transaction`.
        """
        async with self._exclusive() as connection:
            # As a script, because SQLite frees one page per step and `execute` takes one step.
            await connection.executescript("PRAGMA incremental_vacuum")

    async def aclose(self) -> None:
        """Wait for running transactions, then close; idempotent, and closes when cancelled."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._deadline_seconds), self._lock:
                    pass
        finally:
            with translating(self.path):
                await self._connection.close()

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[aiosqlite.Connection]:
        if self._is_closed:
            raise StoreError(f"{self.path} is closed")
        with translating(self.path):
            try:
                async with asyncio.timeout(self._deadline_seconds), self._lock:
                    yield self._connection
            except TimeoutError as error:
                raise StoreError(
                    f"{self.path} did not answer within {self._deadline_seconds:g} s"
                ) from error

    async def _roll_back(self) -> None:
        # A failed rollback heals by itself: the next BEGIN fails, and is rolled back again.
        with suppress(sqlite3.Error, TimeoutError):
            async with asyncio.timeout(_ROLLBACK_SECONDS):
                await self._connection.rollback()


async def _configure(
    connection: aiosqlite.Connection, path: Path, synchronous: Synchronous
) -> None:
    await connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    # Lets the size cap of captures shrink the file. Counts for a file without any page only, and
    # therefore comes before WAL writes the first.
    await connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    rows = list(await connection.execute_fetchall("PRAGMA journal_mode = WAL"))
    if [tuple(row) for row in rows] != [("wal",)]:
        raise StoreError(f"{path} is on a file system that cannot share memory (WAL)")
    await connection.execute(f"PRAGMA synchronous = {synchronous}")
    await connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES}")
    # Sorts must work where the root file system is read-only and there is no temporary directory.
    await connection.execute("PRAGMA temp_store = MEMORY")


async def _migrate(connection: aiosqlite.Connection, path: Path, schema: Schema) -> None:
    ((found,),) = await connection.execute_fetchall("PRAGMA user_version")
    for version, script in enumerate(schema.migrations[found:], start=found + 1):
        await connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {schema.application_id};\n"
            f"PRAGMA user_version = {version};\n"
            "COMMIT;"
        )
        logger.info(
            "database migrated", extra={"path": str(path), "from": version - 1, "to": version}
        )
