import asyncio
from collections.abc import Sequence

import pytest

from helpers.captures import make_capture, make_tunnel
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.writer import CaptureWriter, DropReason, WriterSettings, body_text
from moleport_server.errors import StoreError, StoreFull
from moleport_server.store.base import CaptureRow
from moleport_server.store.memory import MemoryCaptureStore

QUICK = WriterSettings(
    batch_seconds=0.01, rest_seconds=0.001, backoff_first_seconds=0.01, flush_seconds=5.0
)


class WatchedStore(MemoryCaptureStore):
    """The memory store, which tells about batches and can fail or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[CaptureRow]] = []
        self.failures: list[Exception] = []
        self.hangs = False
        self.changed = asyncio.Event()

    async def add_captures(self, rows: Sequence[CaptureRow]) -> None:
        self.batches.append(rows)
        self.changed.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        await super().add_captures(rows)

    async def wait_for_batches(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.batches) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def ids() -> CaptureIds:
    return CaptureIds.random()


async def test_a_capture_is_written_masked_and_without_bodies(
    store: WatchedStore, ids: CaptureIds
) -> None:
    tunnel = make_tunnel(token_id="t")
    capture = make_capture(ids, b"/a?token=abc", request_body=b"private")

    async with CaptureWriter(ids, QUICK).into(store) as writer:
        writer.offer(tunnel, capture)
        await store.wait_for_batches(1)

    (row,) = await store.list_captures(str(tunnel.id), limit=9)
    assert row == CaptureRow(
        id=ids.requests.format(capture.sequence),
        tunnel_id=str(tunnel.id),
        token_id="t",
        connection_id=ids.connections.format(7),
        method="GET",
        path="/a?token=***",
        status=200,
        request_bytes=7,
        response_bytes=0,
        duration_ms=45,
        captured_at=1_750_000_001.5,
        request_head="GET /a?token=*** HTTP/1.1\r\nCookie: a=***\r\n\r\n",
        response_head="HTTP/1.1 200 OK\r\n\r\n",
        request_body=None,
        response_body=None,
    )
    assert writer.queued_bytes == 0


async def test_bodies_are_written_when_asked_for_even_if_memory_gave_them_up(
    store: WatchedStore, ids: CaptureIds
) -> None:
    settings = WriterSettings(persist_bodies=True)
    tunnel = make_tunnel()
    capture = make_capture(ids, request_body=b"\xffa", response_body=b"b")

    async with CaptureWriter(ids, settings).into(store) as writer:
        writer.offer(tunnel, capture)
        capture.request_body = capture.response_body = None

    (row,) = await store.list_captures(str(tunnel.id), limit=9)
    assert (row.request_body, row.response_body) == ("\ufffda", "b")


async def test_rows_come_in_batches(store: WatchedStore, ids: CaptureIds) -> None:
    settings = WriterSettings(batch_rows=10, batch_seconds=60, rest_seconds=0.001)
    tunnel = make_tunnel()

    async with CaptureWriter(ids, settings).into(store) as writer:
        for _ in range(25):
            writer.offer(tunnel, make_capture(ids))
        await store.wait_for_batches(2)
        assert [len(batch) for batch in store.batches] == [10, 10]

    assert [len(batch) for batch in store.batches] == [10, 10, 5]
    assert sum(writer.dropped.values()) == 0


async def test_the_queue_is_bounded_and_counts_what_it_refuses(
    store: WatchedStore, ids: CaptureIds
) -> None:
    settings = WriterSettings(queue_bytes=3000)
    tunnel = make_tunnel()

    async with CaptureWriter(ids, settings).into(store) as writer:
        for _ in range(5):
            writer.offer(tunnel, make_capture(ids))
        assert writer.queued_bytes <= 3000

    assert writer.dropped[DropReason.QUEUE_FULL] == 3
    assert len(store.batches[0]) == 2


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (StoreFull("full"), DropReason.STORE_FULL),
        (StoreError("broken"), DropReason.STORE_ERROR),
        (RuntimeError("a fault"), DropReason.STORE_ERROR),
    ],
    ids=["full", "error", "fault"],
)
async def test_a_failing_store_pauses_writing_and_is_tried_again(
    store: WatchedStore, ids: CaptureIds, failure: Exception, reason: DropReason
) -> None:
    store.failures.append(failure)
    tunnel = make_tunnel()

    async with CaptureWriter(ids, QUICK).into(store) as writer:
        writer.offer(tunnel, make_capture(ids))
        await store.wait_for_batches(1)
        async with asyncio.timeout(20):
            while len(store.batches) < 2:
                writer.offer(tunnel, make_capture(ids))
                await asyncio.sleep(0)

    assert writer.dropped[reason] >= 1
    assert len(await store.list_captures(str(tunnel.id), limit=9)) >= 1


async def test_closing_gives_up_on_a_store_that_hangs_and_counts_the_rest(
    store: WatchedStore, ids: CaptureIds
) -> None:
    store.hangs = True
    tunnel = make_tunnel()
    settings = WriterSettings(batch_rows=2, flush_seconds=0.05)

    async with asyncio.timeout(20), CaptureWriter(ids, settings).into(store) as writer:
        for _ in range(1):
            writer.offer(tunnel, make_capture(ids))

    writer.offer(tunnel, make_capture(ids))
    assert writer.dropped[DropReason.CLOSING] == 2


async def test_cancelling_the_owner_ends_the_writer(store: WatchedStore, ids: CaptureIds) -> None:
    store.hangs = True
    entered = asyncio.Event()

    async def own() -> None:
        async with CaptureWriter(ids, WriterSettings(flush_seconds=0.05)).into(store) as writer:
            writer.offer(make_tunnel(), make_capture(ids))
            await store.wait_for_batches(1)
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(own())
        await entered.wait()
        task.cancel()

    assert task.cancelled()


def test_a_missing_body_stays_missing() -> None:
    assert (body_text(None), body_text(b"")) == (None, "")


async def test_what_is_offered_before_the_store_is_open_is_written_when_it_is(
    store: WatchedStore, ids: CaptureIds
) -> None:
    writer = CaptureWriter(ids, QUICK)
    tunnel = make_tunnel()
    writer.offer(tunnel, make_capture(ids))

    async with writer.into(store):
        pass

    assert writer.written == 1
    assert len(await store.list_captures(str(tunnel.id), limit=10)) == 1
