"""The foundation: what everything else stands on, and what therefore ends last."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from moleport_server.access.descriptors import DescriptorBudget, raise_limit
from moleport_server.app.counting import Counting
from moleport_server.app.sections import capture_limits, writer_settings
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.ring import CaptureLog
from moleport_server.capture.writer import CaptureWriter
from moleport_server.clock import Clock, SystemClock
from moleport_server.config.bounds import CaptureSettings
from moleport_server.config.settings import ServerSettings
from moleport_server.registry.journal import Journal
from moleport_server.store.base import CaptureStore
from moleport_server.store.captures import SqliteCaptureStore
from moleport_server.store.directory import DataDirectory
from moleport_server.store.sqlite import SqliteStateStore
from moleport_wire.aio.tasks import TaskOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """Stores, metrics, captures and those who own tasks."""

    clock: Clock
    descriptors: DescriptorBudget
    counting: Counting
    store: SqliteStateStore
    captures_path: Path
    """Of the store that `open_captures` opens."""
    capture_ids: CaptureIds
    writer: CaptureWriter
    captures: CaptureLog
    journal: Journal
    tasks: TaskOwner
    """Of sessions and of the edge: they end before the journal does."""
    background: TaskOwner
    """Of what runs as long as the server."""


async def lay_foundation(
    settings: ServerSettings, version: str, stack: AsyncExitStack
) -> Foundation:
    """Open the state and start what writes to it.

    Raises:
        StoreError: the data directory cannot be used.
    """
    descriptors = DescriptorBudget(raise_limit(), wished=settings.limits.descriptors)
    directory = stack.enter_context(DataDirectory(settings.server.data_dir))
    store = await SqliteStateStore.open(directory.state_path)
    stack.push_async_callback(store.aclose)
    ids = CaptureIds.random()
    writer = CaptureWriter(ids, writer_settings(settings.capture))
    sink = writer.offer if _are_kept(settings.capture) else None
    tasks = await stack.enter_async_context(TaskOwner())
    journal = Journal()
    background = await stack.enter_async_context(TaskOwner())
    background.start(journal.run(), "journal")
    return Foundation(
        clock=SystemClock(),
        descriptors=descriptors,
        counting=Counting.create(version),
        store=store,
        captures_path=directory.captures_path,
        capture_ids=ids,
        writer=writer,
        captures=CaptureLog(ids, capture_limits(settings.capture), sink=sink),
        journal=journal,
        tasks=tasks,
        background=background,
    )


async def open_captures(
    settings: CaptureSettings, foundation: Foundation, stack: AsyncExitStack
) -> CaptureStore:
    """Open the store of captures, and write what waits for it.

    Visitors are served before: a full store is checked for as long as a disk reads 256 MiB.

    Raises:
        StoreError: it cannot be opened.
    """
    store = await SqliteCaptureStore.open(
        foundation.captures_path, max_bytes=settings.database_bytes
    )
    stack.push_async_callback(store.aclose)
    if _are_kept(settings):
        await stack.enter_async_context(foundation.writer.into(store))
    return store


def _are_kept(settings: CaptureSettings) -> bool:
    return settings.enabled and settings.persist
