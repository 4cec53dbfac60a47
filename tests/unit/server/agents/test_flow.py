from dataclasses import dataclass, field
from typing import cast

import pytest

from helpers.clock import FakeClock
from moleport_server.agents.flow import FlowWatch
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget


@dataclass(eq=False)
class StalledStream:
    """Stands in for a stream whose reader holds bytes of the budget."""

    budget: ReceiveBudget
    held: int
    resets: list[int] = field(default_factory=list)

    @property
    def receiver(self) -> "StalledStream":
        return self

    def reset(self, code: int, reason: str) -> None:
        self.budget.held_bytes -= self.held

    def stream_reset(self, code: int, reason: str) -> None:
        self.resets.append(code)

    def as_stream(self) -> Stream:
        return cast("Stream", self)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def budget() -> ReceiveBudget:
    return ReceiveBudget(1000, 100)


@pytest.fixture
def watch(clock: FakeClock, budget: ReceiveBudget) -> FlowWatch:
    return FlowWatch(budget, monotonic=clock.monotonic, patience_seconds=60.0)


def stalled(watch: FlowWatch, held: int) -> StalledStream:
    stream = StalledStream(watch.budget, held)
    watch.budget.held_bytes += held
    watch.stream_stalled(stream.as_stream())
    return stream


def test_the_longest_stalled_streams_are_reset_until_there_is_room(
    watch: FlowWatch, clock: FakeClock
) -> None:
    first = stalled(watch, 400)
    clock.advance(1)
    second = stalled(watch, 400)
    clock.advance(1)
    third = stalled(watch, 700)
    clock.advance(100)

    watch.sweep()

    assert first.resets == second.resets == [Code.CALM_DOWN]
    assert third.resets == []
    assert watch.resets == 2
    assert watch.stalled_streams == 1


def test_nobody_is_reset_before_its_time(watch: FlowWatch, clock: FakeClock) -> None:
    stream = stalled(watch, 2000)
    clock.advance(59)

    watch.sweep()
    assert stream.resets == []
    clock.advance(2)
    watch.sweep()

    assert stream.resets == [Code.CALM_DOWN]


def test_nobody_is_reset_while_there_is_memory(watch: FlowWatch, clock: FakeClock) -> None:
    stream = stalled(watch, 999)
    clock.advance(10_000)

    watch.sweep()

    assert stream.resets == []


def test_seconds_of_stalls_add_up_with_those_that_still_run(
    watch: FlowWatch, clock: FakeClock
) -> None:
    first, second = stalled(watch, 1), stalled(watch, 1)
    clock.advance(3)
    watch.stream_drained(first.as_stream())
    watch.stream_drained(first.as_stream())
    clock.advance(2)

    assert watch.stalled_seconds == 3 + 5
    watch.stream_drained(second.as_stream())
    clock.advance(100)
    assert watch.stalled_seconds == 3 + 5


def test_seconds_without_credit_add_up_with_those_that_still_run(
    watch: FlowWatch, clock: FakeClock
) -> None:
    stream = StalledStream(watch.budget, 0).as_stream()
    watch.stream_blocked(stream)
    clock.advance(4)
    assert watch.blocked_seconds == 4

    watch.stream_unblocked(stream)
    watch.stream_unblocked(stream)
    clock.advance(10)

    assert watch.blocked_seconds == 4


def test_a_reset_stall_counts_its_seconds(watch: FlowWatch, clock: FakeClock) -> None:
    stalled(watch, 2000)
    clock.advance(61)

    watch.sweep()

    assert watch.stalled_seconds == 61
