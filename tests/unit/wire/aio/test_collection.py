import gc
from collections.abc import Iterator

import pytest

from moleport_wire.aio.collection import YOUNG_OBJECTS, settle


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_exists_is_not_walked_again_and_cycles_still_go() -> None:
    settle()

    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
