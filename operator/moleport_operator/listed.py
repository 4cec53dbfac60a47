"""Tokens as the tunnel server has just listed them, for the rounds of a resync.

A resync asks for a page of tokens and gives each of them a round; a round that finds its token here has no
question of its own to ask. That is all it may be used for: a round that finds something to do asks the server
before it does it.

What is handed out is never older than our own last write to the token, nor than the last call that the
server did not answer, nor than a few seconds, and it is handed out once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from moleport_operator.plan.records import ServerToken

MOST_AGE_SECONDS: Final = 5.0
"""The rounds of a page take less than a second; an operator that is busier has other reasons to ask."""


@dataclass(slots=True, eq=False)
class Listing:
    """A page that was asked for.

    Attributes:
        asked_at: monotonic seconds; nothing in the page is older.
        written: ids of tokens that were written to meanwhile.
        is_void: whether the server was away or replaced meanwhile.
    """

    asked_at: float
    written: set[str] = field(default_factory=set)
    is_void: bool = False


class Listed:
    """States by id. Bounded: what is too old goes when the next page comes."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._states: dict[str, tuple[float, ServerToken]] = {}
        self._under_way: set[Listing] = set()

    def __len__(self) -> int:
        return len(self._states)

    @contextmanager
    def listing(self) -> Iterator[Listing]:
        """Watch for what makes a page stale while it is under way."""
        listing = Listing(self._monotonic())
        self._under_way.add(listing)
        try:
            yield listing
        finally:
            self._under_way.discard(listing)

    def keep(self, listing: Listing, states: Mapping[str, ServerToken]) -> None:
        """Keep the states of a page; called before its `listing` ends."""
        oldest = self._monotonic() - MOST_AGE_SECONDS
        self._states = {
            token_id: known for token_id, known in self._states.items() if known[0] >= oldest
        }
        if listing.is_void:
            return
        for token_id, state in states.items():
            if token_id not in listing.written:
                self._states[token_id] = (listing.asked_at, state)

    def take(self, token_id: str) -> ServerToken | None:
        """Return the state of a token, once; None when it has to be asked for."""
        asked_at, state = self._states.pop(token_id, (0.0, None))
        return state if self._monotonic() - asked_at <= MOST_AGE_SECONDS else None

    def drop(self, token_id: str) -> None:
        """Forget a token: it is about to be written to, or was."""
        self._states.pop(token_id, None)
        for listing in self._under_way:
            listing.written.add(token_id)

    def clear(self) -> None:
        """Forget everything: the server is away, or is another one."""
        self._states.clear()
        for listing in self._under_way:
            listing.is_void = True
