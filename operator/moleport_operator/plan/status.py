"""The status of a TunnelToken, from what was seen and how the round ended.

Everything in it can be rebuilt, nothing in it is needed to act, but for two things that make a decision
safer: the revision that was last delivered, and the count of failures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from moleport_operator.credentials import fingerprint
from moleport_operator.errors import InvalidResource
from moleport_operator.plan.conditions import Condition, Status, find_condition, merge_conditions
from moleport_operator.plan.effective import left_out
from moleport_operator.plan.records import Seen, Settled, Usage
from moleport_operator.plan.secret import Held, read_held
from moleport_operator.plan.timing import schedule
from moleport_operator.quantities import format_time, format_time_or_none, parse_time_or_none

STALLED: Final = frozenset(
    {"SecretNotOwned", "ServerRejected", "InvalidSpec", "DeniedByPolicy", "Expired"}
)
"""Reasons that time does not heal: somebody has to change something."""
QUIET: Final = frozenset({"Issued", "Suspended"})
"""Reasons of a token that is as its owner wants it."""
USAGE_SECONDS: Final = 60
"""Usage is written at most this often: status is for people, metrics are for numbers."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An event for people: the token's readiness changed.

    Attributes:
        is_warning: Warning or Normal.
    """

    reason: str
    message: str
    is_warning: bool


def token_status(seen: Seen, outcome: Settled, *, is_failure: bool = False) -> dict[str, Any]:
    """Return the whole status of a token after a round.

    Args:
        seen: what the round last saw.
        outcome: how it ended.
        is_failure: whether it ended with an error that will be tried again.
    """
    token, old = seen.token, seen.token.status
    held = None if seen.secret is None else read_held(seen.secret)
    # A round that failed may not have come to read everything: what is known stays.
    status: dict[str, Any] = dict(old) if is_failure and held is None else {}
    status |= {
        "observedGeneration": token.meta.generation,
        "tokenID": token.meta.uid,
        "conditions": merge_conditions(
            old.get("conditions") or (),
            _conditions(seen, outcome, held),
            generation=token.meta.generation,
            now=seen.now,
        ),
        "policies": [
            {"kind": policy.kind, "name": policy.name, "observedGeneration": policy.generation}
            for policy in sorted(seen.policies, key=lambda policy: (policy.kind, policy.name))
        ],
    }
    if held is not None:
        status |= {
            "fingerprint": fingerprint(held.sha256),
            "revision": held.revision,
            "binding": {"name": token.secret_name},
            "issuedTime": format_time(held.issued_at),
        }
        if held.not_after is not None:
            status["expirationTime"] = format_time(held.not_after)
        if (renewal_at := _renewal_at(seen, held)) is not None:
            status["renewalTime"] = format_time(renewal_at)
        if held.rotate_handled:
            status["lastHandledRotateRequest"] = held.rotate_handled[:64]
    else:
        # The last revision that somebody may hold: the next one has to be above it.
        status |= {name: old[name] for name in ("revision", "fingerprint") if name in old}
    if is_failure:
        status["failedAttempts"] = int(old.get("failedAttempts", 0)) + 1
        status["lastFailureTime"] = format_time(seen.now)
    if seen.server is not None:
        status["effective"] = _without_nulls(seen.server.effective)
        status["usage"] = _usage(old.get("usage"), seen.server.usage, seen.now)
    else:
        status |= {name: old[name] for name in ("effective", "usage") if name in old}
    return status


def transition(old: Mapping[str, Any], new: Mapping[str, Any]) -> Transition | None:
    """Return the event of a change of readiness, or None when nothing changed for people."""
    before, after = find_condition(old, "Ready"), find_condition(new, "Ready")
    is_same = (before.get("status"), before.get("reason")) == (after["status"], after["reason"])
    if is_same and old.get("revision") == new.get("revision"):
        return None
    if is_same:
        return Transition("Rotated", str(after["message"]), is_warning=False)
    is_warning = after["reason"] not in QUIET | {"Pending", "Revoking"}
    return Transition(str(after["reason"]), str(after["message"]), is_warning=is_warning)


def is_same_status(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a write would change nothing that anybody needs to know."""
    return dict(old) == dict(new)


def _conditions(seen: Seen, outcome: Settled, held: Held | None) -> list[Condition]:
    reason, message = outcome.reason, outcome.message
    is_ready = reason == "Issued"
    policy = _policy_applied(seen, outcome)
    # `kubectl get` shows this one only, and a refused name has to be explained there.
    told = f"{message}; {policy.message}" if is_ready and policy.reason == "Restricted" else message
    found = [Condition("Ready", "True" if is_ready else "False", reason, told)]
    found.append(_server_synced(seen, outcome))
    found.append(_secret_synced(outcome, held))
    found.append(policy)
    if reason in STALLED:
        found.append(Condition("Stalled", "True", reason, message))
    elif reason not in QUIET:
        found.append(Condition("Reconciling", "True", reason, message))
    return found


def _server_synced(seen: Seen, outcome: Settled) -> Condition:
    if outcome.reason in {"ServerUnavailable", "ServerRejected"}:
        status: Status = "Unknown" if outcome.reason == "ServerUnavailable" else "False"
        return Condition("ServerSynced", status, outcome.reason, outcome.message)
    if seen.server is None:
        return Condition("ServerSynced", "False", "Drifted", "the server does not have it yet")
    return Condition("ServerSynced", "True", "Synced", "")


def _secret_synced(outcome: Settled, held: Held | None) -> Condition:
    if outcome.reason in {"SecretNotOwned", "Forbidden"}:
        return Condition("SecretSynced", "False", outcome.reason, outcome.message)
    if held is None:
        return Condition("SecretSynced", "False", "Missing", "no credential has been written yet")
    return Condition("SecretSynced", "True", "Synced", "")


def _policy_applied(seen: Seen, outcome: Settled) -> Condition:
    if outcome.reason == "DeniedByPolicy":
        return Condition("PolicyApplied", "True", "DeniedByPolicy", outcome.message)
    if not seen.policies:
        return Condition("PolicyApplied", "True", "NoPolicy", "")
    names = ", ".join(sorted(policy.name for policy in seen.policies))
    if waiting := seen.awaited_policies:
        return Condition(
            "PolicyApplied",
            "False",
            "PolicyNotAccepted",
            f"the server does not have {', '.join(waiting)} yet",
        )
    if seen.server is not None and (less := left_out(seen.server, seen.facts.domains)):
        message = f"less than asked for, by {names}: {less}"
        return Condition("PolicyApplied", "True", "Restricted", message)
    return Condition("PolicyApplied", "True", "Applied", names)


def _renewal_at(seen: Seen, held: Held) -> int | None:
    try:
        return schedule(seen.token.spec, seen.policies).renewal_at(held.issued_at)
    except InvalidResource:
        return None


def _without_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is unrestricted: API servers drop nulls, and each round would write them again."""
    return {
        name: _without_nulls(inner) if isinstance(inner, Mapping) else inner
        for name, inner in value.items()
        if inner is not None
    }


def _usage(old: Mapping[str, Any] | None, usage: Usage, now: int) -> dict[str, Any]:
    counts: dict[str, Any] = {"activeTunnels": usage.tunnels, "activeAgents": usage.agents}
    if usage.last_used_at is not None:
        counts["lastSeenTime"] = format_time_or_none(usage.last_used_at)
    if old is None and not (usage.tunnels or usage.agents):
        # Without a time: the first use may be told at once.
        return counts
    if old is not None:
        observed_at = parse_time_or_none(old.get("observedTime")) or 0
        is_same = all(old.get(name) == value for name, value in counts.items())
        if is_same or now - observed_at < USAGE_SECONDS:
            return dict(old)
    return counts | {"observedTime": format_time(now)}
