"""What the metrics say of tokens, kept up as tokens change: a scrape of thousands of them walks nothing.

The totals by reason, and which tokens need attention: those that are not well or are being deleted, and at a
time those whose renewal is overdue by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moleport_operator.errors import InvalidResource
from moleport_operator.plan.conditions import find_condition
from moleport_operator.quantities import parse_time_or_none
from moleport_operator.queue import Key


@dataclass(frozen=True, slots=True)
class Tally:
    """What counts of one token."""

    reason: str
    needs_attention: bool
    renewal_at: int | None


class Tallies:
    """Sums over the tokens of the cache."""

    def __init__(self) -> None:
        self._tallies: dict[Key, Tally] = {}
        self._reasons: Counter[str] = Counter()
        self._needy: dict[Key, None] = {}
        """In the order in which they came to need it."""

    def put(self, key: Key, body: Mapping[str, Any]) -> None:
        """Count a token as it is now."""
        tally = _tally(body)
        if self._tallies.get(key) == tally:
            return
        self.remove(key)
        self._tallies[key] = tally
        self._reasons[tally.reason] += 1
        if tally.needs_attention:
            self._needy[key] = None

    def remove(self, key: Key) -> None:
        """Stop counting a token; one that is not counted is no error."""
        tally = self._tallies.pop(key, None)
        if tally is None:
            return
        self._needy.pop(key, None)
        self._reasons[tally.reason] -= 1
        if not self._reasons[tally.reason]:
            del self._reasons[tally.reason]

    def reasons(self) -> dict[str, int]:
        """Return how many tokens are ready, or not, for which reason."""
        return dict(self._reasons)

    def needing_attention(self, now: float) -> list[Key]:
        """Return the tokens that are not well, on their way out, or overdue."""
        late = (
            key
            for key, tally in self._tallies.items()
            if tally.renewal_at is not None and tally.renewal_at < now
        )
        return list(self._needy | dict.fromkeys(late))


def _tally(body: Mapping[str, Any]) -> Tally:
    meta, status = body["metadata"], body.get("status") or {}
    condition = find_condition(status, "Ready")
    reason = str(condition.get("reason", "Unknown"))
    is_well = condition.get("status") == "True" or reason == "Suspended"
    try:
        renewal_at = parse_time_or_none(status.get("renewalTime"))
    except InvalidResource:
        renewal_at = None  # not one of our own statuses: the next round writes it anew
    return Tally(reason, not is_well or "deletionTimestamp" in meta, renewal_at)
