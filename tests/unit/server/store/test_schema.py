import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from helpers.files import digests
from moleport_server.errors import StoreCorrupt, StoreError, StoreTooNew
from moleport_server.store.database import Database
from moleport_server.store.schema import (
    Schema,
    captures_schema,
    create_or_inspect,
    has_write_ahead_log,
    inspect,
    state_schema,
)

STATE = state_schema()


def make(path: Path, *, application_id: int = STATE.application_id, version: int = 1) -> Path:
    """Write a database of many pages, at rest."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE filler (text TEXT)")
        connection.execute("CREATE INDEX fillers ON filler (text)")
        connection.executemany(
            "INSERT INTO filler VALUES (?)", [(f"{number:0500}",) for number in range(100)]
        )
        connection.execute(f"PRAGMA application_id = {application_id}")
        connection.execute(f"PRAGMA user_version = {version}")
    return path


@pytest.mark.parametrize("schema", [state_schema(), captures_schema()], ids=lambda s: s.name)
def test_scripts_are_numbered_without_a_gap(schema: Schema) -> None:
    folder = files("moleport_server.store").joinpath("migrations", schema.name)
    numbers = sorted(entry.name[:5] for entry in folder.iterdir())

    assert numbers == [f"{number:04}_" for number in range(1, schema.version + 1)]


def test_the_kinds_of_databases_differ() -> None:
    assert state_schema().application_id != captures_schema().application_id


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    create_or_inspect(tmp_path / "state.db", STATE)

    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_the_version_is_told_without_leaving_a_trace(tmp_path: Path) -> None:
    path = make(tmp_path / "state.db")
    before = digests(tmp_path)

    assert inspect(path, STATE) == 1

    assert digests(tmp_path) == before


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()

    assert inspect(path, STATE) == 0


def test_a_database_without_any_table_is_a_new_one(tmp_path: Path) -> None:
    # What a crash right after the creation leaves.
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")

    assert path.stat().st_size > 0
    assert inspect(path, STATE) == 0


@pytest.mark.parametrize("kept_bytes", [50, 512, 4096, 5000, 3 * 4096, 20 * 4096])
def test_a_truncated_database_is_refused_untouched(tmp_path: Path, kept_bytes: int) -> None:
    path = make(tmp_path / "state.db")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    before = digests(tmp_path)

    with pytest.raises(StoreCorrupt, match="Restore a backup"):
        inspect(path, STATE)

    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [b"xy", b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 4080, b"\0" * 8192],
    ids=["two bytes", "text", "only the magic", "zeros"],
)
def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    before = digests(tmp_path)

    with pytest.raises(StoreCorrupt):
        inspect(path, STATE)

    assert digests(tmp_path) == before


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    path = make(tmp_path / "state.db")
    content = bytearray(path.read_bytes())
    content[5 * 4096 : 6 * 4096] = b"\xa5" * 4096
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt):
        inspect(path, STATE)


def test_an_empty_file_with_a_log_is_no_new_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    (tmp_path / "state.db-wal").write_bytes(b"x" * 4152)

    with pytest.raises(StoreCorrupt, match="write-ahead log"):
        inspect(path, STATE)


@pytest.mark.parametrize(
    "application_id", [0, 1, captures_schema().application_id], ids=["none", "other", "captures"]
)
def test_a_database_of_something_else_is_refused(tmp_path: Path, application_id: int) -> None:
    path = make(tmp_path / "state.db", application_id=application_id)

    with pytest.raises(StoreCorrupt, match="not a state database of moleport"):
        inspect(path, STATE)


async def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = make(tmp_path / "state.db", version=STATE.version + 1)
    before = digests(tmp_path)

    with pytest.raises(StoreTooNew, match=f"version {STATE.version + 1}"):
        await Database.open(path, STATE, synchronous="FULL")

    assert digests(tmp_path) == before


async def test_a_newer_version_that_is_only_in_the_log_is_seen(tmp_path: Path) -> None:
    path = make(tmp_path / "state.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {STATE.version + 1}")
        (tmp_path / "crash").mkdir()
        crashed = tmp_path / "crash" / "state.db"
        for suffix in ("", "-wal"):
            content = path.with_name(path.name + suffix).read_bytes()
            crashed.with_name(crashed.name + suffix).write_bytes(content)
    before = digests(crashed.parent)
    assert has_write_ahead_log(crashed)

    with pytest.raises(StoreTooNew):
        await Database.open(crashed, STATE, synchronous="FULL")

    # Reading a log needs an index beside it; database and log are as they were.
    assert {name: digests(crashed.parent)[name] for name in before} == before


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        inspect(tmp_path, STATE)


def test_a_directory_that_is_missing_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        create_or_inspect(tmp_path / "gone" / "state.db", STATE)


def test_names_with_special_characters_are_opened(tmp_path: Path) -> None:
    path = make(tmp_path / "a ? b # c % 41.db")

    assert inspect(path, STATE) == 1
