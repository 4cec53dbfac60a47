"""How often a wrong credential may be tried; the rest runs in tests of processes."""

from helpers.clock import FakeClock
from moleport_server.app.doorkeeping import failure_limiter


def test_failures_without_a_limit_are_never_slowed_down() -> None:
    limiter = failure_limiter(0, FakeClock())

    assert not any(limiter.take("192.0.2.1") for _ in range(10_000))


def test_failures_beyond_the_limit_are_slowed_down_per_address() -> None:
    limiter = failure_limiter(2, FakeClock())

    assert [bool(limiter.take("192.0.2.1")) for _ in range(3)] == [False, False, True]
    assert not limiter.take("192.0.2.2")
