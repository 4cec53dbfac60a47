import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from helpers.conformance.store_suite import CaptureStoreSuite, a_capture
from moleport_server.errors import StoreError, StoreFull
from moleport_server.store.captures import SqliteCaptureStore

CAP_BYTES = CaptureStoreSuite.CAP_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captures.db"


class TestSqliteCaptureStore(CaptureStoreSuite):
    @pytest.fixture
    async def stores(self) -> AsyncIterator[list[SqliteCaptureStore]]:
        opened: list[SqliteCaptureStore] = []
        yield opened
        for store in opened:
            await store.aclose()

    @pytest.fixture
    async def store(self, path: Path, stores: list[SqliteCaptureStore]) -> SqliteCaptureStore:
        stores.append(await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES))
        return stores[-1]

    @pytest.fixture
    def reopen(
        self, path: Path, stores: list[SqliteCaptureStore], store: SqliteCaptureStore
    ) -> Callable[[], Awaitable[SqliteCaptureStore]]:
        async def again() -> SqliteCaptureStore:
            assert stores[-1] is store
            await store.aclose()
            stores.append(await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES))
            return stores[-1]

        return again


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteCaptureStore]:
    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)
    yield store
    await store.aclose()


async def test_the_file_stays_within_its_cap(store: SqliteCaptureStore, path: Path) -> None:
    for start in range(0, 400, 20):
        await store.add_captures(
            [a_capture(start + number, response_body="x" * 5000) for number in range(20)]
        )

    await store.aclose()

    assert path.stat().st_size <= CAP_BYTES


async def test_a_store_under_a_smaller_cap_shrinks_its_file(path: Path) -> None:
    store = await SqliteCaptureStore.open(path, max_bytes=4 * CAP_BYTES)
    await store.add_captures([a_capture(n, response_body="x" * 9000) for n in range(100)])
    await store.aclose()
    assert path.stat().st_size > CAP_BYTES

    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)
    await store.add_captures([a_capture(100)])
    rows = await store.list_captures("tunnel-1", limit=1)
    await store.aclose()

    assert path.stat().st_size <= CAP_BYTES
    assert [row.id for row in rows] == ["capture-100"]


async def make(path: Path) -> bytes:
    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)
    await store.add_captures([a_capture(number) for number in range(200)])
    await store.aclose()
    return path.read_bytes()


async def test_a_damaged_file_is_moved_aside_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = (await make(path))[:8000]
    path.write_bytes(damaged)

    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)

    assert await store.list_captures("tunnel-1", limit=1) == []
    await store.add_captures([a_capture(1)])
    await store.aclose()
    (kept,) = path.parent.glob("captures.db.corrupt-*Z")
    assert kept.read_bytes() == damaged
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.message == "captures moved aside"
    assert record.__dict__["kept"] == str(kept)
    assert str(path) in record.__dict__["reason"]


async def test_a_file_of_a_newer_release_is_moved_aside(path: Path) -> None:
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    content = path.read_bytes()

    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)

    await store.aclose()
    (kept,) = path.parent.glob("captures.db.corrupt-*Z")
    assert kept.read_bytes() == content


async def test_the_log_of_a_damaged_file_moves_with_it(path: Path) -> None:
    path.write_bytes(b"garbage")
    path.with_name("captures.db-wal").write_bytes(b"its log")
    path.with_name("captures.db-shm").write_bytes(b"its index")

    store = await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)

    await store.add_captures([a_capture(1)])
    await store.aclose()
    (kept,) = path.parent.glob("captures.db.corrupt-*Z")
    assert kept.read_bytes() == b"garbage"
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"its log"
    assert not kept.with_name(f"{kept.name}-shm").exists()


async def test_a_file_that_cannot_be_opened_is_not_moved(path: Path) -> None:
    path.mkdir()

    with pytest.raises(StoreError):
        await SqliteCaptureStore.open(path, max_bytes=CAP_BYTES)

    assert [entry.name for entry in path.parent.iterdir()] == ["captures.db"]


async def test_a_full_disk_is_told_and_leaves_what_was_there(store: SqliteCaptureStore) -> None:
    await store.add_captures([a_capture(1)])
    async with store._database.transaction() as connection:
        ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
        await connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreFull):
        await store.add_captures([a_capture(2, response_body="x" * 50_000)])

    assert await store.list_captures("tunnel-1", limit=9) == [a_capture(1)]
