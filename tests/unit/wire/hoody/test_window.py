import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_wire.hoody.window import (
    MAX_STREAM_WINDOW_BYTES,
    MIN_STREAM_WINDOW_BYTES,
    STARVED_SECONDS,
    ReceiveBudget,
    ReceiveWindow,
)

KIB = 1024
MIB = 1024 * KIB


def budget_of(limit: int = 256 * MIB, first: int = 256 * KIB) -> ReceiveBudget:
    return ReceiveBudget(limit, first)


def drain(window: ReceiveWindow, count: int) -> int:
    """The peer sends `count` bytes, as its credit allows, and the reader takes them at once."""
    granted = 0
    while count:
        size = min(count, window.credit, 16 * KIB)
        assert size > 0, "the peer ran out of credit although everything was taken"
        window.credit -= size
        granted += window.consume(size)
        count -= size
    return granted


@pytest.mark.parametrize(
    ("committed", "window"),
    [
        pytest.param(0, 256 * KIB, id="empty"),
        pytest.param(128 * MIB - 1, 256 * KIB, id="below a half"),
        pytest.param(128 * MIB, 128 * KIB, id="a half"),
        pytest.param(192 * MIB - 1, 128 * KIB, id="below three quarters"),
        pytest.param(192 * MIB, MIN_STREAM_WINDOW_BYTES, id="three quarters"),
        pytest.param(999 * MIB, MIN_STREAM_WINDOW_BYTES, id="far above"),
    ],
)
def test_the_first_window_shrinks_as_the_budget_fills(committed: int, window: int) -> None:
    budget = budget_of()
    budget.committed_bytes = committed

    assert budget.take_first_window() == window
    assert budget.committed_bytes == committed + window


def test_five_thousand_stalled_streams_stay_within_the_budget() -> None:
    budget = budget_of()

    for _ in range(5000):
        budget.take_first_window()

    assert budget.committed_bytes <= budget.limit_bytes


def test_a_small_first_window_is_never_enlarged() -> None:
    budget = budget_of(first=4 * KIB)
    budget.committed_bytes = 255 * MIB

    assert budget.take_first_window() == 4 * KIB


def test_a_small_request_costs_no_credit_frame() -> None:
    window = ReceiveWindow(budget_of(), 256 * KIB)

    assert window.consume(127 * KIB) == 0
    assert window.consume(1 * KIB) == 128 * KIB


def test_a_reader_that_keeps_up_gets_a_larger_window_up_to_the_limit() -> None:
    budget = budget_of()
    window = ReceiveWindow(budget, budget.take_first_window())

    drain(window, 4 * 256 * KIB)
    assert window.size == 512 * KIB
    drain(window, 64 * MIB)

    assert window.size == MAX_STREAM_WINDOW_BYTES == budget.committed_bytes


class Line:
    """A peer behind some distance, whose bytes come so long after each grant."""

    def __init__(self, window_kib: int = 256) -> None:
        self.now = 1.0
        self.budget = ReceiveBudget(256 * MIB, window_kib * KIB, lambda: self.now)
        self.window = ReceiveWindow(self.budget, self.budget.take_first_window())

    def carry(self, count: int, *, pauses: list[float]) -> None:
        """Carry `count` bytes; `pauses` are those behind the grants, in turn."""
        grants = 0
        for _ in range(count // (16 * KIB)):
            if self.window.granted_at:
                self.now += pauses[grants % len(pauses)]
                grants += 1
                self.window.note_arrival()
            self.window.credit -= 16 * KIB
            self.window.consume(16 * KIB)


@pytest.mark.parametrize(
    ("pauses", "size"),
    [
        pytest.param([0.0], 256 * KIB, id="bytes come all the time"),
        pytest.param([STARVED_SECONDS * 0.9], 256 * KIB, id="near"),
        pytest.param([0.02, *[0.0] * 7], 256 * KIB, id="busy now and then"),
        pytest.param([0.0, 0.02], MAX_STREAM_WINDOW_BYTES, id="far, every other grant"),
        pytest.param([0.02], MAX_STREAM_WINDOW_BYTES, id="far"),
    ],
)
def test_a_window_grows_only_where_its_reader_waits_for_the_distance(
    pauses: list[float], size: int
) -> None:
    line = Line()

    line.carry(16 * MIB, pauses=pauses)

    assert line.window.size == line.budget.committed_bytes == size


def test_a_stall_of_the_reader_is_no_distance() -> None:
    line = Line()
    line.carry(3 * 256 * KIB, pauses=[0.02])

    line.window.hold(1)
    line.window.unhold()
    line.carry(3 * 256 * KIB, pauses=[0.0])
    line.carry(256 * KIB, pauses=[0.02])

    assert line.window.size == 256 * KIB


def test_a_stall_delays_growth() -> None:
    budget = budget_of()
    window = ReceiveWindow(budget, budget.take_first_window())
    drain(window, 3 * 256 * KIB)

    window.hold(1)
    window.unhold()
    drain(window, 3 * 256 * KIB)

    assert window.size == 256 * KIB


@pytest.mark.parametrize(
    ("committed", "held"),
    [
        pytest.param(192 * MIB, 0, id="windows given out"),
        pytest.param(0, 128 * MIB + 1, id="bytes held"),
    ],
)
def test_no_window_grows_without_room(committed: int, held: int) -> None:
    budget = budget_of()
    window = ReceiveWindow(budget, budget.take_first_window())
    budget.committed_bytes += committed
    budget.held_bytes += held

    drain(window, 16 * 256 * KIB)

    assert window.size == 256 * KIB


def test_the_budget_is_exhausted_when_stalled_readers_hold_all_of_it() -> None:
    budget = budget_of(limit=MIB)
    window = ReceiveWindow(budget, budget.take_first_window())

    window.hold(MIB - 1)
    assert not budget.is_exhausted
    window.hold(1)
    assert budget.is_exhausted

    assert window.unhold() == MIB
    assert window.unhold() == 0
    assert not budget.is_exhausted


def test_closing_gives_everything_back_once() -> None:
    budget = budget_of()
    window = ReceiveWindow(budget, budget.take_first_window())
    window.hold(5)

    window.close()
    window.close()

    assert (budget.committed_bytes, budget.held_bytes) == (0, 0)


@given(st.lists(st.integers(1, 64 * KIB), max_size=200))
def test_credit_and_untaken_bytes_are_always_one_window(sizes: list[int]) -> None:
    budget = budget_of()
    window = ReceiveWindow(budget, budget.take_first_window())
    taken = granted = 0

    for size in sizes:
        window.credit -= size
        assert window.credit >= 0
        taken += size
        granted += window.consume(size)
        # What is not granted yet is less than half a window, so the peer can always go on.
        assert 0 < window.credit <= window.size
        assert window.credit > window.size // 2
    assert window.credit == 256 * KIB - taken + granted
    assert budget.committed_bytes == window.size
