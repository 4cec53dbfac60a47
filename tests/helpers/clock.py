"""A clock that stands still until a test moves it."""


class FakeClock:
    """Implements `moleport_server.clock.Clock`; both kinds of time move together."""

    def __init__(self, now: float = 1_750_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds
