"""Conditions of a resource: merged so that times tell transitions, never rounds.

`lastTransitionTime` stays unless the status of the condition flips, as the conventions of the API ask;
`Reconciling` and `Stalled` exist only while they are true, which is how kstatus reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from moleport_operator.quantities import format_time

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without its times."""

    type: str
    status: Status
    reason: str
    message: str


def merge_conditions(
    old: Iterable[Mapping[str, Any]],
    new: Iterable[Condition],
    *,
    generation: int,
    now: int,
) -> list[dict[str, Any]]:
    """Return the conditions for a status, with transition times kept where nothing flipped.

    Args:
        old: what the status holds; conditions that are not in `new` go.
        new: at most eight, in the order to show.
        generation: the one that was acted upon.
        now: Unix seconds.
    """
    before = {condition.get("type"): condition for condition in old}
    merged = []
    for condition in new:
        known = before.get(condition.type, {})
        since = known.get("lastTransitionTime") if known.get("status") == condition.status else None
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since or format_time(now),
                "reason": condition.reason,
                "message": condition.message,
            }
        )
    return merged


def find_condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a condition of a status, or an empty mapping."""
    found: Mapping[str, Any]
    for found in status.get("conditions") or ():
        if found.get("type") == kind:
            return found
    return {}
