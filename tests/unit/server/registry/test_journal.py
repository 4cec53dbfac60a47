import asyncio
from collections.abc import AsyncIterator

import pytest

from moleport_server.errors import StoreFull
from moleport_server.registry import journal as journal_module
from moleport_server.registry.journal import Journal
from moleport_wire.aio.tasks import TaskOwner


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    journal = Journal()
    async with TaskOwner() as tasks:
        tasks.start(journal.run(), "journal")
        yield journal


class Disk:
    """Writes into a list, or fails."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.is_full = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, what: str) -> None:
        await self.gate.wait()
        if self.is_full:
            raise StoreFull("disk full")
        self.written.append(what)


async def test_writes_happen_in_the_order_they_were_asked_for(journal: Journal) -> None:
    disk = Disk()

    journal.post("a", lambda: disk.write("a"))
    journal.post("b", lambda: disk.write("b"))
    assert await journal.write("c", lambda: disk.write("c"))

    assert disk.written == ["a", "b", "c"]


async def test_a_failed_write_is_told_logged_and_counted_and_the_next_one_tried(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    disk.is_full = True

    assert not await journal.write("save lease", lambda: disk.write("a"))
    disk.is_full = False
    assert await journal.write("save lease", lambda: disk.write("b"))

    assert journal.failures == 1
    assert disk.written == ["b"]
    assert [record.__dict__["error"] for record in caplog.records] == ["disk full"]


async def test_a_bug_in_one_write_does_not_end_the_others(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()

    async def broken() -> None:
        raise ZeroDivisionError

    assert not await journal.write("save lease", broken)
    assert await journal.write("save lease", lambda: disk.write("b"))

    assert journal.failures == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_store_that_hangs_is_given_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "WRITE_SECONDS", 0.01)
    disk = Disk()
    disk.gate.clear()

    assert not await journal.write("save lease", lambda: disk.write("a"))
    assert await journal.flush(5.0)

    assert journal.failures == 1
    assert disk.written == []


async def test_a_flush_waits_for_what_was_posted(journal: Journal) -> None:
    disk = Disk()
    journal.post("a", lambda: disk.write("a"))

    assert await journal.flush(5.0)

    assert disk.written == ["a"]


async def test_a_flush_gives_up_when_time_runs_out(journal: Journal) -> None:
    disk = Disk()
    disk.gate.clear()
    journal.post("a", lambda: disk.write("a"))

    assert not await journal.flush(0.01)

    disk.gate.set()
    assert await journal.flush(5.0)


async def test_a_write_whose_waiter_left_happens_all_the_same(journal: Journal) -> None:
    disk = Disk()
    disk.gate.clear()
    waiter = asyncio.ensure_future(journal.write("a", lambda: disk.write("a")))  # noqa: TID251
    await asyncio.sleep(0)

    waiter.cancel()
    disk.gate.set()

    assert await journal.flush(5.0)
    assert disk.written == ["a"]
