"""Captured requests in a SQLite file of their own, `captures.db`, which may be lost.

Speed and room go before durability here: commits need not reach the disk at once, the oldest rows
leave when the file reaches its cap, and a file that cannot be used is moved aside instead of
keeping the server from starting. The state of the server never depends on it.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final, Self

import aiosqlite

from moleport_server.errors import StoreCorrupt, StoreTooNew
from moleport_server.store.aside import free_name
from moleport_server.store.base import CaptureRow
from moleport_server.store.database import Database
from moleport_server.store.failures import translating
from moleport_server.store.schema import beside, captures_schema

logger = logging.getLogger(__name__)

_INSERT = """
    INSERT OR REPLACE INTO captures (
        id, tunnel_id, token_id, connection_id, method, path, status, request_bytes,
        response_bytes, duration_ms, captured_at, request_head, response_head, request_body,
        response_body)
    VALUES (
        :id, :tunnel_id, :token_id, :connection_id, :method, :path, :status, :request_bytes,
        :response_bytes, :duration_ms, :captured_at, :request_head, :response_head, :request_body,
        :response_body)
"""
_SELECT = """
    SELECT id, tunnel_id, token_id, connection_id, method, path, status, request_bytes,
           response_bytes, duration_ms, captured_at, request_head, response_head, request_body,
           response_body
    FROM captures
"""
_USED_BYTES = """
    SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
_ENDS = "SELECT (SELECT MIN(seq) FROM captures), (SELECT MAX(seq) FROM captures)"
_KEPT_SHARE = 0.9
"""What remains of the cap after a trim, so that not every batch has to trim."""
_MOST_ROWS = 2**63 - 1


class SqliteCaptureStore:
    """The `CaptureStore` on disk; made by `open`, closed by its owner."""

    def __init__(self, database: Database, *, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int) -> Self:
        """Open or create `captures.db`; the caller holds the lock of its directory and closes it.

        A file that is damaged, foreign or too new is moved aside under a name that tells the time
        (`captures.db.corrupt-20250131T235959Z`), with a warning, and a new one is begun.

        Args:
            path: the file; its directory exists.
            max_bytes: cap of the pages in use. The write-ahead log beside the file comes on top, a
                few MiB between batches.

        Raises:
            StoreFull: there is no room to create it.
            StoreError: it cannot be opened or moved aside.
        """
        try:
            database = await _open(path)
        except (StoreCorrupt, StoreTooNew) as error:
            with translating(path):
                kept = await asyncio.to_thread(_move_aside, path)
            logger.warning(
                "captures moved aside",
                extra={"path": str(path), "kept": str(kept), "reason": str(error)},
            )
            database = await _open(path)
        return cls(database, max_bytes=max_bytes)

    async def aclose(self) -> None:
        """Wait for running transactions, then close; idempotent."""
        await self._database.aclose()

    async def add_captures(self, rows: Sequence[CaptureRow]) -> None:
        """See `CaptureStore.add_captures`."""
        if not rows:
            return
        async with self._database.transaction() as connection:
            await connection.executemany(_INSERT, [_columns(row) for row in rows])
            was_trimmed = await self._trim(connection)
        if was_trimmed:
            await self._database.release_free_pages()

    async def list_captures(self, tunnel_id: str, *, limit: int) -> list[CaptureRow]:
        """See `CaptureStore.list_captures`; a negative limit counts as 0."""
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(
                f"{_SELECT} WHERE tunnel_id = ? ORDER BY captured_at DESC, seq DESC LIMIT ?",
                [tunnel_id, max(0, min(limit, _MOST_ROWS))],
            )
        return [CaptureRow(**dict(row)) for row in rows]

    async def get_capture(self, capture_id: str) -> CaptureRow | None:
        """See `CaptureStore.get_capture`."""
        async with self._database.transaction() as connection:
            rows = list(await connection.execute_fetchall(f"{_SELECT} WHERE id = ?", [capture_id]))
        return CaptureRow(**dict(rows[0])) if rows else None

    async def _trim(self, connection: aiosqlite.Connection) -> bool:
        ((used,),) = await connection.execute_fetchall(_USED_BYTES)
        if used <= self._max_bytes:
            return False
        target = int(self._max_bytes * _KEPT_SHARE)
        while used > target:
            ((first, last),) = await connection.execute_fetchall(_ENDS)
            if first is None:
                break
            # Rows differ in size, so this share is a guess that the next round corrects.
            count = math.ceil((last - first + 1) * (1 - target / used))
            await connection.execute("DELETE FROM captures WHERE seq < ?", [first + count])
            ((used,),) = await connection.execute_fetchall(_USED_BYTES)
        return True


async def _open(path: Path) -> Database:
    return await Database.open(path, captures_schema(), synchronous="NORMAL")


_COLUMN_NAMES: Final = tuple(field.name for field in fields(CaptureRow))


def _columns(row: CaptureRow) -> dict[str, str | int | float | None]:
    # Visitors choose these texts, and one that is not valid Unicode must not lose its batch.
    columns: dict[str, str | int | float | None] = {}
    for name in _COLUMN_NAMES:
        value = getattr(row, name)
        if type(value) is str and not value.isascii():
            value = value.encode("utf-8", "backslashreplace").decode()
        columns[name] = value
    return columns


def _move_aside(path: Path) -> Path:
    kept = free_name(path, "corrupt")
    log = beside(path, "-wal")
    if log.exists():
        log.rename(beside(kept, "-wal"))
    # Only an index into the log, made anew by whoever opens the file.
    beside(path, "-shm").unlink(missing_ok=True)
    path.rename(kept)
    return kept
