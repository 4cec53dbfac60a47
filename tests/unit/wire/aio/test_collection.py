import gc
from collections.abc import Iterator

import pytest

from moleport_wire.aio.collection import YOUNG_OBJECTS, postponed, settle


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    assert gc.isenabled()


def test_a_start_is_not_interrupted_and_settling_ends_it() -> None:
    with postponed():
        assert not gc.isenabled()
        settle()
        assert gc.isenabled()


def test_a_start_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ValueError, match="no"), postponed():
        raise ValueError("no")

    assert gc.isenabled()


def test_what_exists_is_not_walked_again_and_cycles_still_go() -> None:
    settle()

    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
