import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from moleport_server.errors import StoreCorrupt, StoreError
from moleport_server.store.database import Database
from moleport_server.store.schema import Schema, inspect

FIRST = "CREATE TABLE notes (text TEXT NOT NULL);"
SECOND = "ALTER TABLE notes ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';"


def schema(*migrations: str) -> Schema:
    return Schema(name="notes", application_id=77, migrations=migrations)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = await Database.open(path, schema(FIRST), synchronous="FULL", deadline_seconds=5)
    yield database
    await database.aclose()


async def write(database: Database, text: str) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO notes (text) VALUES (?)", [text])


async def read(database: Database) -> list[str]:
    async with database.transaction() as connection:
        return [row[0] for row in await connection.execute_fetchall("SELECT text FROM notes")]


async def pragma(database: Database, name: str) -> object:
    async with database.transaction() as connection:
        ((value,),) = await connection.execute_fetchall(f"PRAGMA {name}")
    return value


async def test_a_commit_reaches_the_disk_before_it_is_acknowledged(database: Database) -> None:
    assert await pragma(database, "journal_mode") == "wal"
    assert await pragma(database, "synchronous") == 2
    assert await pragma(database, "foreign_keys") == 1


async def test_migrations_run_once_and_in_order(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old = await Database.open(path, schema(FIRST), synchronous="FULL")
    await write(old, "kept")
    await old.aclose()

    for _ in range(2):
        new = await Database.open(path, schema(FIRST, SECOND), synchronous="FULL")
        async with new.transaction() as connection:
            rows = await connection.execute_fetchall("SELECT text, colour FROM notes")
            assert [tuple(row) for row in rows] == [("kept", "blue")]
        await new.aclose()

    assert inspect(path, schema(FIRST, SECOND)) == 2
    assert [record.message for record in caplog.records] == ["database migrated"] * 2


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    database = await Database.open(path, schema(FIRST), synchronous="FULL")
    await write(database, "kept")
    await database.aclose()

    broken = schema(FIRST, f"{SECOND} DELETE FROM notes; CREATE TABLE notes (x);")
    with pytest.raises(StoreError, match="already exists"):
        await Database.open(path, broken, synchronous="FULL")

    assert inspect(path, schema(FIRST)) == 1
    database = await Database.open(path, schema(FIRST), synchronous="FULL")
    assert await read(database) == ["kept"]
    async with database.transaction() as connection:
        columns = await connection.execute_fetchall("SELECT * FROM notes")
        assert [len(row) for row in columns] == [1]
    await database.aclose()


async def test_an_exception_undoes_the_transaction(database: Database) -> None:
    async def write_and_fail() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('lost')")
            raise KeyError

    with pytest.raises(KeyError):
        await write_and_fail()

    assert await read(database) == []


async def test_an_error_of_sqlite_is_translated_and_undone(database: Database) -> None:
    async def write_nothing() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('lost')")
            await connection.execute("INSERT INTO notes VALUES (NULL)")

    with pytest.raises(StoreError, match="NOT NULL"):
        await write_nothing()

    assert await read(database) == []


@pytest.mark.parametrize("turns", range(12))
async def test_a_transaction_cancelled_anywhere_takes_place_wholly_or_not_at_all(
    database: Database, turns: int
) -> None:
    async def write_two() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('a')")
            await connection.execute("INSERT INTO notes VALUES ('b')")

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write_two())
        for _ in range(turns):
            await asyncio.sleep(0)
        writer.cancel()

    assert await read(database) in ([], ["a", "b"])
    await write(database, "c")
    assert (await read(database))[-1] == "c"


async def test_a_cancellation_between_statements_undoes_the_first(database: Database) -> None:
    reached = asyncio.Event()

    async def write_and_hang() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('a')")
            reached.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write_and_hang())
        await reached.wait()
        writer.cancel()

    assert await read(database) == []


@pytest.fixture
async def stalled(path: Path) -> AsyncIterator[tuple[Database, threading.Event]]:
    """A database of a short deadline whose SQL function `stall()` waits for the event."""
    go = threading.Event()
    database = await Database.open(path, schema(FIRST), synchronous="FULL", deadline_seconds=0.5)
    async with database.transaction() as connection:
        await connection.create_function("stall", 0, lambda: str(go.wait(10)))
    yield database, go
    go.set()
    await database.aclose()


async def test_a_disk_that_does_not_answer_fails_the_transaction_in_time(
    stalled: tuple[Database, threading.Event],
) -> None:
    database, go = stalled

    with pytest.raises(StoreError, match=r"did not answer within 0\.5 s"):
        async with asyncio.timeout(20), database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES (stall())")
    with pytest.raises(StoreError, match="did not answer"):
        await write(database, "while it stalls")
    go.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await read(database) == []
            except StoreError:
                continue
            break


async def test_a_closed_database_says_so(database: Database) -> None:
    await database.aclose()
    await database.aclose()

    with pytest.raises(StoreError, match="is closed"):
        await read(database)


async def test_closing_waits_for_those_who_came_before(path: Path) -> None:
    database = await Database.open(path, schema(FIRST), synchronous="FULL")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(write(database, str(number)))
        await asyncio.sleep(0)
        await database.aclose()

    again = await Database.open(path, schema(FIRST), synchronous="FULL")
    assert sorted(map(int, await read(again))) == list(range(20))
    await again.aclose()


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_closing_closes(path: Path, turns: int) -> None:
    database = await Database.open(path, schema(FIRST), synchronous="FULL")

    async with asyncio.TaskGroup() as tasks:
        closer = tasks.create_task(database.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closer.cancel()
    if turns == 0:
        await database.aclose()

    assert not path.with_name("notes.db-wal").exists()


async def test_a_page_damaged_while_running_is_told(database: Database, path: Path) -> None:
    async with database.transaction() as connection:
        await connection.executemany(
            "INSERT INTO notes VALUES (?)", [("x" * 3000,) for _ in range(100)]
        )
    async with database.transaction() as connection:
        await connection.execute("PRAGMA cache_size = 1")
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt):
        await read(database)


async def test_a_reader_sees_one_moment_while_the_server_writes(
    database: Database, path: Path
) -> None:
    await write(database, "before")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        seen = reader.execute("SELECT text FROM notes").fetchall()

        await write(database, "after")

        assert reader.execute("SELECT text FROM notes").fetchall() == seen == [("before",)]
