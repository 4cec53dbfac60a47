from collections.abc import Awaitable, Callable

import pytest

from helpers.conformance.store_suite import CaptureStoreSuite, StateStoreSuite
from moleport_server.store.base import CaptureStore, StateStore
from moleport_server.store.memory import MemoryCaptureStore, MemoryStateStore


class TestMemoryStateStore(StateStoreSuite):
    @pytest.fixture
    def store(self) -> StateStore:
        return MemoryStateStore()

    @pytest.fixture
    def reopen(self, store: StateStore) -> Callable[[], Awaitable[StateStore]]:
        async def same() -> StateStore:
            return store

        return same


class TestMemoryCaptureStore(CaptureStoreSuite):
    @pytest.fixture
    def store(self) -> CaptureStore:
        return MemoryCaptureStore(max_bytes=self.CAP_BYTES)

    @pytest.fixture
    def reopen(self, store: CaptureStore) -> Callable[[], Awaitable[CaptureStore]]:
        async def same() -> CaptureStore:
            return store

        return same


async def test_each_store_is_another_instance() -> None:
    assert await MemoryStateStore().instance_id() != await MemoryStateStore().instance_id()
