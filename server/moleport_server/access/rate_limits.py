"""How fast things may happen: token buckets, alone and by key.

Pure over the time that the caller passes in, so the hot path costs one subtraction and one
comparison. A bucket starts full: the first `burst` takes pass at once, then `rate` per second.
"""

from collections import OrderedDict
from math import inf
from typing import Final

from moleport_server.clock import Clock

MAX_KEYS: Final = 65_536
"""About 10 MiB when full. Beyond it the key that was quiet longest is forgotten."""


class TokenBucket:
    """Allows `rate` per second on average and `burst` at once."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a bucket needs a rate above 0 and a burst of at least 1")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated_at = now

    def take(self, now: float, amount: float = 1.0) -> float:
        """Take `amount` and return 0.0, or take nothing and return the seconds to wait.

        Args:
            now: monotonic seconds; a step back counts as no time passed.
            amount: never more than fits into the bucket: the wait is then infinite.
        """
        tokens = self._refill(now)
        if tokens >= amount:
            self._tokens = tokens - amount
            return 0.0
        return self._wait(amount, tokens)

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Return what `take` would, and take nothing."""
        tokens = self._refill(now)
        return 0.0 if tokens >= amount else self._wait(amount, tokens)

    def is_full(self, now: float) -> bool:
        """Whether the bucket is as good as a new one, so that it can be forgotten."""
        return self._refill(now) >= self._burst

    def _refill(self, now: float) -> float:
        elapsed = now - self._updated_at
        if elapsed > 0:
            self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
            self._updated_at = now
        return self._tokens

    def _wait(self, amount: float, tokens: float) -> float:
        return inf if amount > self._burst else (amount - tokens) / self._rate


class KeyedLimiter:
    """One bucket per key, in bounded memory.

    Keys are forgotten least recently taken first: full buckets at each call, because forgetting
    those changes nothing, and others only when there are more than `max_keys`. An attacker with
    that many addresses buys a fresh bucket with each, with or without the bound.
    """

    __slots__ = ("_buckets", "_burst", "_clock", "_max_keys", "_rate")

    def __init__(
        self, rate: float, burst: float, clock: Clock, *, max_keys: int = MAX_KEYS
    ) -> None:
        TokenBucket(rate, burst, 0.0)  # reports bad parameters here instead of at the first take
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._buckets)

    def take(self, key: str) -> float:
        """Take one for this key and return 0.0, or return the seconds to wait."""
        now = self._clock.monotonic()
        buckets = self._buckets
        bucket = buckets.get(key)
        if bucket is None:
            self._forget_idle(now)
            bucket = buckets[key] = TokenBucket(self._rate, self._burst, now)
        else:
            buckets.move_to_end(key)
        return bucket.take(now)

    def wait(self, key: str) -> float:
        """Return the seconds until a take for this key would pass, 0.0 for now; take nothing."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(self._clock.monotonic())

    def _forget_idle(self, now: float) -> None:
        """Make room for one key; at most two buckets per call are looked at, so it stays cheap."""
        buckets = self._buckets
        for _ in range(min(2, len(buckets))):
            key = next(iter(buckets))
            if len(buckets) < self._max_keys and not buckets[key].is_full(now):
                return
            del buckets[key]
