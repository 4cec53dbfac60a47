"""Signs of life of the watches, for `/livez` and for an alert.

A watch that died without a word is the classic end of an operator: it runs, answers and does nothing. In a
quiet cluster nothing happens for hours, so events alone prove nothing. Bytes do: API servers send a bookmark
each minute on every stream, and kopf reconnects a stream on which nothing came for 70 s. So there are two
signs. `heard` is anything that came on a stream or list, also bookmarks; how long ago that was is a metric.
`tried` is a call that was begun. Only when neither was seen for minutes does the watcher itself hang, and
only then is a restart the right answer: an API server that is down does not come back by restarting us.

Written by kopf's thread and read by ours; each write replaces one value of a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from moleport_operator.clock import Clock

STALE_SECONDS: Final = 300.0
"""Several times what separates two signs: 60 s of bookmarks, 70 s of kopf's patience, 51 s of back-off."""


class WatchLife:
    """When each watched list was last tried and heard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: tuple[str, ...] = ()
        self._began = 0.0
        self._signs: dict[str, float] = {}
        """By path: a namespace of its own has a stream of its own."""
        self._heard: dict[str, float] = {}
        """By plural, Unix seconds."""

    def begin(self, plurals: Iterable[str]) -> None:
        """Expect signs of these kinds from now on."""
        self._expected, self._began = tuple(plurals), self._clock.monotonic()

    def tried(self, path: str) -> None:
        """Note that a call of a list or watch began."""
        if _plural(path) in self._expected:
            self._signs[path] = self._clock.monotonic()

    def heard(self, path: str) -> None:
        """Note that something came."""
        if (plural := _plural(path)) in self._expected:
            self._signs[path] = self._clock.monotonic()
            self._heard[plural] = self._clock.now()

    def last_heard(self) -> dict[str, float]:
        """Return when something came last, in Unix seconds, by plural."""
        return dict(self._heard)

    def silent(self) -> str | None:
        """Return a sentence about a watcher that hangs, or None."""
        now = self._clock.monotonic()
        signs = list(self._signs.items())
        for plural in self._expected:
            seen = [at for path, at in signs if _plural(path) == plural] or [self._began]
            if now - min(seen) > STALE_SECONDS:
                return f"the watch of {plural} has given no sign for {now - min(seen):.0f} s"
        return None


def _plural(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
