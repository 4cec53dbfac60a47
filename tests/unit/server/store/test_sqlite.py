import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from helpers.conformance.store_suite import (
    NOW,
    StateStoreSuite,
    a_credential,
    a_lease,
    a_log_entry,
    a_session,
    a_token,
    add_tokens,
    ids,
)
from moleport_server.errors import InvalidRequest, StoreCorrupt, StoreFull
from moleport_server.store.base import HistoryQuery
from moleport_server.store.sqlite import SqliteStateStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


class TestSqliteStateStore(StateStoreSuite):
    @pytest.fixture
    async def stores(self) -> AsyncIterator[list[SqliteStateStore]]:
        opened: list[SqliteStateStore] = []
        yield opened
        for store in opened:
            await store.aclose()

    @pytest.fixture
    async def store(self, path: Path, stores: list[SqliteStateStore]) -> SqliteStateStore:
        stores.append(await SqliteStateStore.open(path))
        return stores[-1]

    @pytest.fixture
    def reopen(
        self, path: Path, stores: list[SqliteStateStore], store: SqliteStateStore
    ) -> Callable[[], Awaitable[SqliteStateStore]]:
        async def again() -> SqliteStateStore:
            await stores[-1].aclose()
            stores.append(await SqliteStateStore.open(path))
            return stores[-1]

        return again


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStateStore]:
    store = await SqliteStateStore.open(path)
    yield store
    await store.aclose()


async def test_a_new_database_is_another_instance(store: SqliteStateStore, tmp_path: Path) -> None:
    other = await SqliteStateStore.open(tmp_path / "other.db")

    assert await other.instance_id() != await store.instance_id()

    await other.aclose()


async def test_concurrent_writers_lose_nothing(store: SqliteStateStore) -> None:
    async def register(number: int) -> None:
        owner = f"token-{number}"
        await store.create_token(a_token(number), a_credential(number))
        await store.save_session(a_session(number, token_id=owner))
        await store.save_lease(a_lease(number, token_id=owner))
        await store.add_log_entry(a_log_entry(number, token_id=owner))
        await store.touch_credentials({(owner, 1): NOW})
        await store.park_leases(f"session-{number}", NOW + 60)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(register(number))

    rows = await store.list_tokens()
    assert {row.token.id for row in rows} == {f"token-{number}" for number in range(40)}
    assert {row.tunnel_count for row in rows} == {1}
    assert {row.token.last_used_at for row in rows} == {NOW}
    assert [lease.until for lease in await store.load_leases()] == [NOW + 60] * 40
    assert len(await store.load_sessions()) == 40


async def test_a_cancelled_writer_writes_all_or_nothing(store: SqliteStateStore) -> None:
    random = Random(7)
    finished: set[str] = set()

    async def create(number: int) -> None:
        await store.create_token(a_token(number), a_credential(number))
        finished.add(f"token-{number}")

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(create(number)) for number in range(100)]
        while not all(writer.done() for writer in writers):
            random.choice(writers).cancel()
            await store.list_tokens(limit=1)

    rows = await store.list_tokens()
    assert finished <= set(ids(rows))
    assert finished != {f"token-{number}" for number in range(100)}
    assert {len(row.credentials) for row in rows} <= {1}
    await add_tokens(store, 1000)
    assert await store.get_token("token-1000") is not None


async def test_a_full_disk_writes_nothing_and_forgets_nothing(path: Path) -> None:
    store = await SqliteStateStore.open(path)
    await add_tokens(store, 1)
    async with store._database.transaction() as connection:
        ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
        await connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreFull, match="nothing was written"):
        await store.create_token(a_token(2, label="x" * 100_000), a_credential(2))
    with pytest.raises(StoreFull):
        await store.save_lease(a_lease(1, settings="x" * 100_000))

    assert ids(await store.list_tokens()) == ["token-1"]
    await store.touch_credentials({("token-1", 1): NOW})
    await store.aclose()
    store = await SqliteStateStore.open(path)
    assert ids(await store.list_tokens()) == ["token-1"]
    await add_tokens(store, 2)
    await store.aclose()


WRITER = """
import asyncio, sys
from pathlib import Path
from moleport_server.domain.token import Credential, Token
from moleport_server.store.sqlite import SqliteStateStore

async def main():
    store = await SqliteStateStore.open(Path(sys.argv[1]))
    number = 0
    while True:
        token = Token(id=f"token-{number}", label="", created_at=float(number))
        credential = Credential(token_id=token.id, revision=1, sha256=f"{number:064x}")
        await store.create_token(token, credential)
        print(token.id, flush=True)
        number += 1

asyncio.run(main())
"""


async def test_a_killed_server_forgets_nothing_that_it_acknowledged(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().split()

    store = await SqliteStateStore.open(path)

    rows = await store.list_tokens()
    assert len(acknowledged) >= 25
    assert set(acknowledged) <= set(ids(rows))
    assert {len(row.credentials) for row in rows} == {1}
    await store.aclose()


async def test_rows_left_open_by_a_crash_stay_open(path: Path) -> None:
    # A closed store is no crash, but the rows are the same: nobody closed them.
    store = await SqliteStateStore.open(path)
    await store.add_log_entry(a_log_entry(1))
    await store.aclose()

    store = await SqliteStateStore.open(path)

    _, total = await store.query_history(HistoryQuery(now=NOW, active=True))
    assert total == 1
    await store.aclose()


async def test_an_unreadable_grant_names_its_token(path: Path) -> None:
    store = await SqliteStateStore.open(path)
    await add_tokens(store, 1)
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("""UPDATE tokens SET access = '{"protocols": null}'""")

    store = await SqliteStateStore.open(path)

    with pytest.raises(StoreCorrupt, match="token token-1 cannot be read"):
        await store.get_token("token-1")
    await store.aclose()


async def test_a_text_that_is_no_unicode_is_the_callers_mistake(store: SqliteStateStore) -> None:
    with pytest.raises(InvalidRequest):
        await store.create_token(a_token(label="\ud800"), a_credential())

    assert await store.list_tokens() == []


async def test_cancelling_the_opening_leaves_a_usable_file(path: Path) -> None:
    for turns in range(12):
        opening = asyncio.Task(SqliteStateStore.open(path))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).aclose()

    store = await SqliteStateStore.open(path)
    await add_tokens(store, 1)
    await store.aclose()
