from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clock import FakeClock
from moleport_server.access.rate_limits import KeyedLimiter, TokenBucket


def test_a_bucket_allows_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=100.0)

    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(0.5)
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) > 0


def test_asking_for_the_wait_takes_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0, now=0.0)

    assert bucket.wait(0.0) == 0.0
    assert bucket.take(0.0) == 0.0
    assert bucket.wait(0.0) == 1.0
    assert bucket.wait(0.0) == 1.0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0, now=100.0)
    bucket.take(100.0)

    assert bucket.take(50.0) == 1.0
    assert bucket.take(100.5) == 0.5


def test_more_than_the_bucket_holds_never_passes() -> None:
    assert TokenBucket(rate=1.0, burst=2.0, now=0.0).take(0.0, 3.0) == inf


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)])
def test_buckets_that_could_never_pass_are_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate above 0"):
        TokenBucket(rate, burst, 0.0)
    with pytest.raises(ValueError, match="rate above 0"):
        KeyedLimiter(rate, burst, FakeClock())


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=80))
def test_no_history_gets_more_than_burst_and_rate(gaps: list[float]) -> None:
    bucket = TokenBucket(rate=2.0, burst=5.0, now=0.0)
    now, passed = 0.0, 0

    for gap in gaps:
        now += gap
        passed += bucket.take(now) == 0.0

    assert passed <= 5 + 2 * now + 1e-6


def test_a_refused_caller_passes_after_the_time_it_was_told() -> None:
    clock = FakeClock()
    limiter = KeyedLimiter(0.5, 1, clock)
    limiter.take("a")

    clock.advance(limiter.take("a") + 1e-9)

    assert limiter.take("a") == 0.0


def test_keys_do_not_affect_each_other() -> None:
    limiter = KeyedLimiter(1.0, 1, FakeClock())

    assert limiter.take("a") == 0.0
    assert limiter.take("a") > 0
    assert limiter.wait("a") > 0
    assert limiter.take("b") == 0.0
    assert limiter.wait("never seen") == 0.0


def test_memory_is_bounded_and_the_key_quiet_for_longest_goes_first() -> None:
    limiter = KeyedLimiter(0.001, 1, FakeClock(), max_keys=3)
    for key in "abc":
        limiter.take(key)
    limiter.take("a")

    limiter.take("d")

    assert len(limiter) == 3
    assert limiter.wait("b") == 0.0
    assert limiter.wait("a") > 0


def test_keys_that_are_as_good_as_new_are_forgotten() -> None:
    clock = FakeClock()
    limiter = KeyedLimiter(1.0, 1, clock)
    for number in range(50):
        limiter.take(str(number))
    clock.advance(10)

    for number in range(50):
        limiter.take(f"later-{number}")

    assert len(limiter) <= 50
