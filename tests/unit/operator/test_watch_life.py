import pytest

from helpers.clock import FakeClock
from moleport_operator.watch_life import STALE_SECONDS, WatchLife

TOKENS = "/apis/moleport.dev/v1alpha1/tunneltokens"
IN_A = "/apis/moleport.dev/v1alpha1/namespaces/a/tunneltokens"
IN_B = "/apis/moleport.dev/v1alpha1/namespaces/b/tunneltokens"


def life() -> tuple[WatchLife, FakeClock]:
    clock = FakeClock()
    watched = WatchLife(clock)
    watched.begin(["tunneltokens"])
    return watched, clock


def test_nothing_is_expected_of_an_operator_that_stands_by() -> None:
    clock = FakeClock()
    watched = WatchLife(clock)

    clock.advance(10 * STALE_SECONDS)

    assert watched.silent() is None


def test_a_watch_that_never_began_is_silent() -> None:
    watched, clock = life()

    clock.advance(STALE_SECONDS + 1)

    assert "tunneltokens" in (watched.silent() or "")


@pytest.mark.parametrize("sign", ["heard", "tried"])
def test_bookmarks_and_attempts_each_keep_it_alive(sign: str) -> None:
    watched, clock = life()
    for _ in range(20):
        clock.advance(60)
        getattr(watched, sign)(TOKENS)

    assert watched.silent() is None


def test_one_stream_of_many_that_hangs_is_found() -> None:
    watched, clock = life()
    watched.heard(IN_B)
    for _ in range(6):
        clock.advance(60)
        watched.heard(IN_A)

    assert watched.silent() is not None


def test_attempts_are_no_news_and_other_paths_nothing_at_all() -> None:
    watched, _ = life()
    watched.tried(TOKENS)
    watched.heard("/apis/moleport.dev/v1alpha1")
    assert watched.last_heard() == {}

    watched.heard(TOKENS)

    assert list(watched.last_heard()) == ["tunneltokens"]
