from __future__ import annotations

from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helpers.clock import FakeClock
from moleport_operator.listed import MOST_AGE_SECONDS, Listed, Listing
from moleport_operator.plan.records import ServerToken, TokenWish


def state(etag: str = "1") -> ServerToken:
    return ServerToken(etag=etag, wish=TokenWish(label="shop", owner=None))


def listed_of(clock: FakeClock, **states: ServerToken) -> Listed:
    listed = Listed(clock.monotonic)
    with listed.listing() as listing:
        listed.keep(listing, states)
    return listed


def test_a_state_is_handed_out_once() -> None:
    listed = listed_of(FakeClock(), shop=state())

    assert listed.take("shop") == state()
    assert listed.take("shop") is None


def test_a_state_that_is_older_than_some_seconds_is_not_handed_out() -> None:
    clock = FakeClock()
    fresh, old = listed_of(clock, shop=state()), listed_of(clock, shop=state())

    clock.advance(MOST_AGE_SECONDS)
    assert fresh.take("shop") is not None
    clock.advance(0.1)
    assert old.take("shop") is None


def test_the_age_of_a_page_counts_from_its_request() -> None:
    clock = FakeClock()
    listed = Listed(clock.monotonic)

    with listed.listing() as listing:
        clock.advance(MOST_AGE_SECONDS + 1)
        listed.keep(listing, {"shop": state()})

    assert listed.take("shop") is None


def test_a_write_makes_what_was_listed_stale_also_on_its_way() -> None:
    listed = listed_of(FakeClock(), shop=state(), till=state())

    listed.drop("shop")
    assert listed.take("shop") is None
    with listed.listing() as listing:
        listed.drop("shop")
        listed.keep(listing, {"shop": state(), "till": state("2")})

    assert listed.take("shop") is None
    assert listed.take("till") == state("2")


def test_a_server_that_went_away_makes_everything_stale_also_on_its_way() -> None:
    listed = listed_of(FakeClock(), shop=state())

    listed.clear()
    assert listed.take("shop") is None
    with listed.listing() as listing:
        listed.clear()
        listed.keep(listing, {"shop": state()})

    assert listed.take("shop") is None


def test_what_nobody_took_goes_with_the_next_page() -> None:
    clock = FakeClock()
    listed = listed_of(clock, shop=state(), till=state())

    clock.advance(MOST_AGE_SECONDS + 1)
    with listed.listing() as listing:
        listed.keep(listing, {"bell": state()})

    assert len(listed) == 1


IDS = st.sampled_from(["a", "b", "c"])


class Interleavings(RuleBasedStateMachine):
    """A server of versions; lists, writes and time in any order. The etag of a state is its version."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.listed = Listed(self.clock.monotonic)
        self.versions = dict.fromkeys("abc", 0)
        self.since = dict.fromkeys("abc", 0)
        """The version that our last write to each made."""
        self.pages: list[tuple[Listing, dict[str, int], ExitStack]] = []

    @rule()
    def ask_for_a_page(self) -> None:
        stack = ExitStack()
        listing = stack.enter_context(self.listed.listing())
        self.pages.append((listing, dict(self.versions), stack))

    @rule(number=st.integers(0, 3))
    def get_a_page(self, number: int) -> None:
        if number < len(self.pages):
            listing, versions, stack = self.pages.pop(number)
            with stack:
                states = {name: state(str(version)) for name, version in versions.items()}
                self.listed.keep(listing, states)

    @rule(name=IDS)
    def write(self, name: str) -> None:
        self.listed.drop(name)
        self.versions[name] += 1
        self.since[name] = self.versions[name]
        self.listed.drop(name)

    @rule(name=IDS)
    def let_somebody_else_write(self, name: str) -> None:
        self.versions[name] += 1

    @rule()
    def replace_the_server(self) -> None:
        self.listed.clear()
        for name in self.versions:
            self.versions[name] += 1
            self.since[name] = self.versions[name]

    @rule(seconds=st.floats(0.1, 4))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=IDS)
    def take(self, name: str) -> None:
        found = self.listed.take(name)
        if found is not None:
            assert int(found.etag) >= self.since[name], "older than our own last write"
            assert self.listed.take(name) is None

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.listed) <= 3


TestInterleavings = Interleavings.TestCase
