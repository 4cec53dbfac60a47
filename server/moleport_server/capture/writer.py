"""Carry captures to the durable store, behind the back of the hot path.

The edge only appends to a bounded queue; one task masks and writes in batches. The store is
losable, the server's speed is not: when requests come faster than a disk should be asked to record
them, or the disk is full, captures are dropped and counted by reason, and tunnels go on. What is offered
before the store is open waits for it in the same queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Self
from uuid import UUID

from moleport_server.capture.masking import mask_head, mask_target
from moleport_server.capture.record import Capture, CaptureIds
from moleport_server.errors import StoreError, StoreFull
from moleport_server.registry.live import Tunnel
from moleport_server.store.base import CaptureRow, CaptureStore

logger = logging.getLogger(__name__)

_ROW_OVERHEAD_BYTES: Final = 1024
"""What a waiting capture costs beside its heads and bodies."""
_MASKED_AT_ONCE: Final = 20
"""Rows masked before the event loop gets its turn: well under a millisecond."""


class DropReason(StrEnum):
    """Why a capture was not stored."""

    QUEUE_FULL = "queue_full"
    """Requests come faster than they are written."""
    STORE_FULL = "store_full"
    """The disk is full."""
    STORE_ERROR = "store_error"
    """The store failed otherwise."""
    CLOSING = "closing"
    """The flush at the end did not finish in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """How captures are written."""

    persist_bodies: bool = False
    """Whether bodies leave memory at all; off because they are what visitors typed."""
    queue_bytes: int = 4 << 20
    """Memory that may wait for the disk."""
    batch_rows: int = 100
    """Rows of one transaction."""
    batch_seconds: float = 0.5
    """How long the first row of a batch waits for company."""
    rest_seconds: float = 1.0
    """Pause between batches: with `batch_rows` this caps the rate at 100 rows a second, so that
    recording never takes a noticeable share of a busy server (a row costs up to 0.7 ms of CPU
    beside a busy event loop, measured)."""
    backoff_first_seconds: float = 1.0
    """Pause after the store failed; doubled with each failure in a row."""
    backoff_limit_seconds: float = 60.0
    flush_seconds: float = 2.0
    """How long closing waits for the rest."""
    write_seconds: float = 30.0
    """Deadline of one transaction."""


class _Waiting(NamedTuple):
    tunnel_id: UUID
    token_id: str | None
    capture: Capture
    request_body: bytes | None
    response_body: bytes | None
    size: int


class CaptureWriter:
    """Owns the queue and the task that empties it; use as `async with writer.into(store)`.

    Attributes:
        dropped: how many captures were lost, by reason; read by the metrics.
        written: how many reached the store; read by the metrics.
    """

    def __init__(self, ids: CaptureIds, settings: WriterSettings | None = None) -> None:
        self._store: CaptureStore
        self._ids = ids
        self._settings = settings or WriterSettings()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._batch_ready = asyncio.Event()
        self._closing = asyncio.Event()
        self._refusing: DropReason | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._life: asyncio.Timeout | None = None
        self._deadline: float | None = None
        self.dropped: dict[DropReason, int] = dict.fromkeys(DropReason, 0)
        self.written = 0

    @property
    def queued_bytes(self) -> int:
        """Memory that waits to be written."""
        return self._queued_bytes

    def into(self, store: CaptureStore) -> Self:
        """Say where to write; the writer is entered next."""
        self._store = store
        return self

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._tasks.create_task(self._run(), name="capture writer")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Write what is queued, within the deadline, and count as dropped what could not be.

        Safe to cancel: the task ends either way.
        """
        if self._tasks is not None:
            self._closing.set()
            self._batch_ready.set()
            self._wake.set()
            # The deadline holds for a transaction that hangs already, too.
            now = asyncio.get_running_loop().time()
            self._deadline = now + self._settings.flush_seconds
            if self._life is not None and not self._life.expired():
                self._life.reschedule(self._deadline)
            await self._tasks.__aexit__(None, None, None)

    def offer(self, tunnel: Tunnel, capture: Capture) -> None:
        """Queue a capture; never waits. When it cannot be kept it is dropped and counted."""
        if self._refusing is not None:
            self.dropped[self._refusing] += 1
            return
        if self._queued_bytes + _ROW_OVERHEAD_BYTES > self._settings.queue_bytes:
            # The usual case under load, before anything is measured.
            self.dropped[DropReason.QUEUE_FULL] += 1
            return
        size = _ROW_OVERHEAD_BYTES + len(capture.request_head) + len(capture.response_head)
        request_body = response_body = None
        if self._settings.persist_bodies:
            # Taken now: the ring may give up the bodies before they are written.
            request_body, response_body = capture.request_body, capture.response_body
            size += len(request_body or b"") + len(response_body or b"")
        if self._queued_bytes + size > self._settings.queue_bytes:
            self.dropped[DropReason.QUEUE_FULL] += 1
            return
        self._queue.append(
            _Waiting(tunnel.id, tunnel.token_id, capture, request_body, response_body, size)
        )
        self._queued_bytes += size
        if len(self._queue) == 1:
            self._wake.set()
        if len(self._queue) >= self._settings.batch_rows:
            self._batch_ready.set()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout_at(self._deadline) as self._life:
                await self._write_until_closed()
                while self._queue and await self._write_batch():
                    pass
        except TimeoutError:
            logger.warning("captures were not flushed in time", extra={"rows": len(self._queue)})
        finally:
            self._life = None
            self._drop_queue(DropReason.CLOSING)
            self._refusing = DropReason.CLOSING

    async def _write_until_closed(self) -> None:
        settings = self._settings
        backoff = settings.backoff_first_seconds
        while not self._closing.is_set():
            # No deadline: waiting for the first request may take for ever.
            await self._wake.wait()
            self._wake.clear()
            while self._queue and not self._closing.is_set():
                await _wait_at_most(settings.batch_seconds, self._batch_ready)
                self._batch_ready.clear()
                if self._closing.is_set():
                    return
                if await self._write_batch():
                    backoff = settings.backoff_first_seconds
                    await _wait_at_most(settings.rest_seconds, self._closing)
                    if len(self._queue) >= settings.batch_rows:
                        self._batch_ready.set()
                else:
                    await _wait_at_most(backoff, self._closing)
                    backoff = min(backoff * 2, settings.backoff_limit_seconds)
                    self._refusing = None

    async def _write_batch(self) -> bool:
        """Write the oldest rows; False if the store failed, which drops everything queued."""
        count = min(len(self._queue), self._settings.batch_rows)
        batch = [self._queue.popleft() for _ in range(count)]
        self._queued_bytes -= sum(waiting.size for waiting in batch)
        rows: list[CaptureRow] = []
        written = False
        try:
            for start in range(0, count, _MASKED_AT_ONCE):
                rows += [self._row(waiting) for waiting in batch[start : start + _MASKED_AT_ONCE]]
                await asyncio.sleep(0)
            async with asyncio.timeout(self._settings.write_seconds):
                await self._store.add_captures(rows)
            written = True
            self.written += count
        except StoreFull as error:
            self._fail(DropReason.STORE_FULL, count, error)
        except (StoreError, TimeoutError) as error:
            self._fail(DropReason.STORE_ERROR, count, error)
        except Exception as error:
            # A fault of ours in recording must not end the tunnels, which the task group would.
            logger.exception("captures cannot be written")
            self._fail(DropReason.STORE_ERROR, count, error)
        except asyncio.CancelledError:
            self.dropped[DropReason.CLOSING] += count
            raise
        return written

    def _fail(self, reason: DropReason, count: int, error: Exception) -> None:
        fields = {"reason": reason.value, "error": repr(error)}
        logger.warning("captures are not stored", extra=fields)
        self.dropped[reason] += count
        self._drop_queue(reason)
        self._refusing = reason

    def _drop_queue(self, reason: DropReason) -> None:
        self.dropped[reason] += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0

    def _row(self, waiting: _Waiting) -> CaptureRow:
        capture = waiting.capture
        return CaptureRow(
            id=self._ids.requests.format(capture.sequence),
            tunnel_id=str(waiting.tunnel_id),
            token_id=waiting.token_id,
            connection_id=self._ids.connections.format(capture.connection_id),
            method=capture.method.decode("latin-1"),
            path=mask_target(capture.target),
            status=capture.status,
            request_bytes=capture.request_bytes,
            response_bytes=capture.response_bytes,
            duration_ms=round(capture.duration_seconds * 1000),
            captured_at=capture.captured_at,
            request_head=mask_head(capture.request_head),
            response_head=mask_head(capture.response_head),
            request_body=body_text(waiting.request_body),
            response_body=body_text(waiting.response_body),
        )


def body_text(body: bytes | None) -> str | None:
    """Return a captured body as text; bytes that are not UTF-8 become replacement characters."""
    return None if body is None else body.decode("utf-8", "replace")


async def _wait_at_most(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
