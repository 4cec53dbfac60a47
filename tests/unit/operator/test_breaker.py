import asyncio

import pytest

from helpers.clock import FakeClock
from moleport_operator.breaker import FAILURES_TO_OPEN, MOST_PAUSE_SECONDS, Breaker
from moleport_operator.errors import ServerUnavailable


def opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed("refused")
    return breaker


def test_some_failures_in_a_row_open_it_and_calls_fail_with_the_reason() -> None:
    breaker = Breaker(FakeClock())
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed("refused")
    breaker.check()

    breaker.failed("refused")

    with pytest.raises(ServerUnavailable, match="refused"):
        breaker.check()


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(FakeClock())
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed("refused")
        breaker.succeeded()

    breaker.check()
    assert not breaker.is_open


def test_it_tells_once_when_it_closes() -> None:
    clock, told = FakeClock(), []
    breaker = opened(clock)
    breaker.when_closed = lambda: told.append(True)
    clock.advance(5)
    assert breaker.open_seconds == 5

    breaker.succeeded()
    breaker.succeeded()

    assert told == [True]
    assert breaker.open_seconds == 0


def test_probes_come_at_growing_intervals_that_end() -> None:
    breaker = opened(FakeClock())

    pauses = [breaker.next_pause() for _ in range(6)]

    assert pauses == [1, 2, 4, 8, MOST_PAUSE_SECONDS, MOST_PAUSE_SECONDS]


async def test_who_waits_for_it_to_open_is_woken() -> None:
    breaker = opened(FakeClock())

    async with asyncio.timeout(20):
        await breaker.wait_open()

    assert breaker.reason == "refused"
