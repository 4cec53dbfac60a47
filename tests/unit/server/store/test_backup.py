import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from helpers.conformance.store_suite import a_capture, a_credential, a_token, add_tokens, ids
from helpers.files import digests
from moleport_server.errors import StoreCorrupt, StoreError, StoreLocked, StoreTooNew
from moleport_server.store.backup import backup, restore
from moleport_server.store.captures import SqliteCaptureStore
from moleport_server.store.directory import DataDirectory
from moleport_server.store.schema import Schema, inspect
from moleport_server.store.sqlite import SqliteStateStore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "monday.db"


async def fill(data: Path, *numbers: int) -> str:
    """Add tokens as a server would, and return the instance id."""
    store = await SqliteStateStore.open(data / "state.db")
    await add_tokens(store, *numbers)
    instance_id = await store.instance_id()
    await store.aclose()
    return instance_id


async def content(data: Path) -> tuple[str, list[str]]:
    store = await SqliteStateStore.open(data / "state.db")
    found = await store.instance_id(), ids(await store.list_tokens())
    await store.aclose()
    return found


async def test_a_restored_backup_is_the_state_of_its_moment(data: Path, copy: Path) -> None:
    instance_id = await fill(data, 1, 2)
    backup(data, copy)
    await fill(data, 3)

    kept = restore(copy, data)

    assert await content(data) == (instance_id, ["token-2", "token-1"])
    assert kept is not None
    assert kept.name.startswith("state.db.before-restore-")
    previous = data / "previous"
    previous.mkdir()
    shutil.copy(kept, previous / "state.db")
    assert await content(previous) == (instance_id, ["token-3", "token-2", "token-1"])


async def test_a_backup_is_one_file_for_its_owner_only(data: Path, copy: Path) -> None:
    await fill(data, 1)

    backup(data, copy)

    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_a_backup_moves_to_another_machine(data: Path, copy: Path, tmp_path: Path) -> None:
    instance_id = await fill(data, 1)
    backup(data, copy)

    assert restore(copy, tmp_path / "new") is None

    assert await content(tmp_path / "new") == (instance_id, ["token-1"])


async def test_a_backup_while_the_server_writes_has_what_was_acknowledged_before(
    data: Path, copy: Path
) -> None:
    with DataDirectory(data) as directory:
        store = await SqliteStateStore.open(directory.state_path)
        acknowledged = 0
        started = asyncio.Event()

        async def write() -> None:
            nonlocal acknowledged
            for number in range(100):
                await store.create_token(a_token(number), a_credential(number))
                acknowledged = number + 1
                if number == 10:
                    started.set()

        copies: list[tuple[int, Path]] = []
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(write())
            await started.wait()
            while not writer.done():
                target = copy.with_name(f"{len(copies)}.db")
                copies.append((acknowledged, target))
                await asyncio.to_thread(backup, data, target)
        await store.aclose()

    for before, target in copies:
        with closing(sqlite3.connect(target)) as connection:
            tokens = {row[0] for row in connection.execute("SELECT id FROM tokens")}
            slots = {row[0] for row in connection.execute("SELECT token_id FROM credentials")}
        assert tokens == slots == {f"token-{number}" for number in range(len(tokens))}
        assert len(tokens) >= before


async def test_captures_are_neither_in_a_backup_nor_lost_by_a_restore(
    data: Path, copy: Path
) -> None:
    await fill(data, 1)
    captures = await SqliteCaptureStore.open(data / "captures.db", max_bytes=2**20)
    await captures.add_captures([a_capture(1)])
    await captures.aclose()
    backup(data, copy)

    restore(copy, data)

    captures = await SqliteCaptureStore.open(data / "captures.db", max_bytes=2**20)
    assert await captures.get_capture("capture-1") == a_capture(1)
    await captures.aclose()
    assert b"HTTP/1.1" not in copy.read_bytes()


async def test_a_file_that_exists_is_overwritten_only_if_asked(data: Path, copy: Path) -> None:
    await fill(data, 1)
    copy.write_text("precious")

    with pytest.raises(StoreError, match="exists"):
        backup(data, copy)
    assert copy.read_text() == "precious"

    backup(data, copy, overwrite=True)
    assert copy.read_bytes().startswith(b"SQLite format 3\0")


async def test_a_file_that_appears_during_the_backup_is_kept(
    data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(data, 1)

    def inspect_and_lose_the_race(path: Path, schema: Schema) -> int:
        copy.write_text("precious")
        return inspect(path, schema)

    monkeypatch.setattr("moleport_server.store.backup.inspect", inspect_and_lose_the_race)

    with pytest.raises(StoreError, match="exists"):
        backup(data, copy)

    assert [(path.name, path.read_text()) for path in copy.parent.iterdir()] == [
        (copy.name, "precious")
    ]


async def test_a_file_system_without_links_gets_its_backup(
    data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(data, 1)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    backup(data, copy)

    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_directory_without_a_database_has_no_backup(data: Path, copy: Path) -> None:
    with pytest.raises(StoreError, match="no server ever used it"):
        backup(data, copy)

    assert list(data.iterdir()) == []
    assert list(copy.parent.iterdir()) == []


async def test_a_damaged_database_makes_no_backup(data: Path, copy: Path) -> None:
    await fill(data, *range(50))
    state = data / "state.db"
    state.write_bytes(state.read_bytes()[:20_000])

    with pytest.raises(StoreCorrupt):
        backup(data, copy)

    assert list(copy.parent.iterdir()) == []


async def test_a_missing_destination_directory_is_an_error_of_the_store(
    data: Path, copy: Path
) -> None:
    await fill(data, 1)

    with pytest.raises(StoreError, match="No such file or directory"):
        backup(data, copy.parent / "gone" / "monday.db")


async def test_a_restore_is_refused_while_a_server_runs(data: Path, copy: Path) -> None:
    await fill(data, 1)
    backup(data, copy)

    with DataDirectory(data):
        before = digests(data)
        with pytest.raises(StoreLocked):
            restore(copy, data)
        assert digests(data) == before


async def spoil(copy: Path, damage: str) -> None:
    if damage == "newer":
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA user_version = 999")
    elif damage == "truncated":
        copy.write_bytes(copy.read_bytes()[:20_000])
    elif damage == "garbage":
        copy.write_bytes(b"garbage" * 1000)
    elif damage == "empty":
        copy.write_bytes(b"")
    elif damage == "captures":
        copy.unlink()
        captures = await SqliteCaptureStore.open(copy, max_bytes=2**20)
        await captures.aclose()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("newer", StoreTooNew),
        ("truncated", StoreCorrupt),
        ("garbage", StoreCorrupt),
        ("empty", StoreCorrupt),
        ("captures", StoreCorrupt),
    ],
)
async def test_an_unusable_backup_changes_nothing(
    data: Path, copy: Path, damage: str, expected: type[StoreError]
) -> None:
    await fill(data, *range(50))
    backup(data, copy)
    await spoil(copy, damage)
    before = digests(data) | digests(copy.parent)

    with pytest.raises(expected):
        restore(copy, data)

    assert digests(data) | digests(copy.parent) == before


def test_a_missing_backup_is_named(data: Path, copy: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        restore(copy, data)


async def test_a_backup_replaces_a_damaged_state_and_keeps_it(data: Path, copy: Path) -> None:
    instance_id = await fill(data, *range(50))
    backup(data, copy)
    (data / "state.db").write_bytes(b"garbage" * 1000)
    (data / "state.db-wal").write_bytes(b"a log that nobody can read")
    (data / "state.db-shm").write_bytes(b"its index")

    kept = restore(copy, data)

    assert kept is not None
    assert kept.read_bytes() == b"garbage" * 1000
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"a log that nobody can read"
    found, tokens = await content(data)
    assert (found, len(tokens)) == (instance_id, 50)


async def test_what_a_crashed_server_left_in_its_log_is_kept_aside(
    data: Path, copy: Path, tmp_path: Path
) -> None:
    await fill(data, 1)
    backup(data, copy)
    store = await SqliteStateStore.open(data / "state.db")
    await add_tokens(store, 2)
    crashed = tmp_path / "crashed"
    shutil.copytree(data, crashed)
    await store.aclose()
    assert (crashed / "state.db-wal").stat().st_size > 0

    kept = restore(copy, crashed)

    assert kept is not None
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM tokens").fetchone() == (2,)
    assert (await content(crashed))[1] == ["token-1"]


async def test_a_restore_that_fails_leaves_the_previous_state(
    data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(data, 1)
    backup(data, copy)
    await fill(data, 2)
    with DataDirectory(data):
        before = digests(data)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", refuse)
    with pytest.raises(StoreError, match="no room"):
        restore(copy, data)

    assert digests(data) == before
