"""Tombstones: ids of sessions that ended for good, so that their clients are told to stop asking.

A stock client that lost its session tries to resume it for a minute, and takes every fresh session for
a reason to try again. Only «this one is over» ends that.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

KEPT_SECONDS: Final = 120.0
"""Twice as long as a client tries."""
MOST: Final = 10_000
"""About 1 MiB of ids; the oldest go first."""


class Tombstones:
    """Ids and when they may be forgotten."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._until: OrderedDict[str, float] = OrderedDict()

    def add(self, session_id: str) -> None:
        """Remember that a session is over."""
        self._until[session_id] = self._monotonic() + KEPT_SECONDS
        self._until.move_to_end(session_id)
        while len(self._until) > MOST:
            self._until.popitem(last=False)

    def discard(self, session_id: str) -> None:
        """Forget one."""
        self._until.pop(session_id, None)

    def __contains__(self, session_id: str) -> bool:
        until = self._until.get(session_id)
        return until is not None and self._monotonic() < until
