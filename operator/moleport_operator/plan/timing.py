"""When a revision ends, when the next one is due, and how long the old one still works.

Renewal of a credential with an end comes at two thirds of its lifetime, like that of certificates: a third
is left for an outage. A policy that requires rotation turns `Disabled` into `BeforeExpiry`, and gives
a token without any lifetime or interval a period of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from moleport_operator.plan.records import AttachedPolicy
from moleport_operator.quantities import parse_duration
from moleport_operator.resources import TokenSpec

REQUIRED_PERIOD_SECONDS: Final = 90 * 24 * 3600
"""Period where a policy requires rotation and nothing else says how often."""
MOST_OVERLAP_SECONDS: Final = 3600
"""Mounted Secrets reach their pods within two minutes; an hour forgives a laptop its lunch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The periods of one token, in seconds; None is never."""

    lifetime: int | None
    renew_after: int | None
    overlap: int

    def not_after(self, issued_at: int) -> int | None:
        """Return the end of a revision."""
        return None if self.lifetime is None else issued_at + self.lifetime

    def renewal_at(self, issued_at: int) -> int | None:
        """Return when the next revision is due."""
        return None if self.renew_after is None else issued_at + self.renew_after


def schedule(spec: TokenSpec, policies: Iterable[AttachedPolicy]) -> Schedule:
    """Return the periods under all policies: the shortest lifetime wins.

    Raises:
        InvalidResource: a duration of the spec cannot be read.
    """
    attached = tuple(policies)
    lifetimes = [policy.max_lifetime for policy in attached if policy.max_lifetime is not None]
    if spec.lifetime is not None:
        lifetimes.append(parse_duration(spec.lifetime))
    lifetime = min(lifetimes, default=None)
    periods = [] if lifetime is None else [lifetime * 2 // 3]
    mode = spec.rotation.mode
    if spec.rotation.interval is not None and mode == "Periodic":
        periods.append(parse_duration(spec.rotation.interval))
    is_required = any(policy.requires_rotation for policy in attached)
    if is_required and not periods:
        periods.append(REQUIRED_PERIOD_SECONDS)
    renew_after = None if mode == "Disabled" and not is_required else min(periods, default=None)
    if spec.rotation.overlap is not None:
        overlap = parse_duration(spec.rotation.overlap)
    else:
        overlap = min(
            [MOST_OVERLAP_SECONDS, *(period // 4 for period in _whole(lifetime, periods))]
        )
    return Schedule(lifetime=lifetime, renew_after=renew_after, overlap=overlap)


def _whole(lifetime: int | None, periods: list[int]) -> list[int]:
    return [*periods] if lifetime is None else [lifetime, *periods]
