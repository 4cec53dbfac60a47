"""Which policies a token has, and what of them the operator itself has to keep.

The server merges access and limits; lifetimes, rotation and the number of tokens are kept here, because
only the operator can. A policy that is being deleted, or whose targets cannot be read, attaches to nothing or
to everything it names; it never silently loosens a token of another policy, since each merge only tightens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moleport_operator.plan.records import AttachedPolicy
from moleport_operator.quantities import parse_duration
from moleport_operator.resources import Meta, Selector, TargetRef, TunnelPolicy


def attaches(policy: TunnelPolicy, token: Meta, namespace_labels: Mapping[str, str]) -> bool:
    """Whether a policy attaches to a token.

    Args:
        policy: of either kind.
        token: metadata of a TunnelToken.
        namespace_labels: those of the token's namespace, for policies of the cluster.
    """
    if policy.meta.is_deleting:
        return False
    if policy.kind == "TunnelPolicy":
        return policy.meta.namespace == token.namespace and any(
            _targets(ref, token.name, token.labels) for ref in policy.spec.target_refs
        )
    return any(_targets(ref, token.namespace, namespace_labels) for ref in policy.spec.target_refs)


def attached_policy(policy: TunnelPolicy, *, is_accepted: bool) -> AttachedPolicy:
    """Return what a token's plan needs of a policy.

    Raises:
        InvalidResource: a duration of the policy cannot be read.
    """
    rules = policy.spec.tokens
    return AttachedPolicy(
        kind=policy.kind,
        name=policy.meta.name,
        uid=policy.meta.uid,
        generation=policy.meta.generation,
        is_accepted=is_accepted,
        max_lifetime=parse_duration(rules.max_lifetime) if rules and rules.max_lifetime else None,
        requires_rotation=rules is not None and rules.require_rotation,
    )


def above_quota(policy: TunnelPolicy, tokens: Iterable[Meta]) -> frozenset[str]:
    """Return the uids of a policy's tokens that are too many; the oldest stay.

    Args:
        policy: one with or without `maxTokens`.
        tokens: those that it attaches to.
    """
    rules = policy.spec.tokens
    if rules is None or rules.max_tokens is None:
        return frozenset()
    oldest_first = sorted(
        (token for token in tokens if not token.is_deleting),
        key=lambda token: (token.created_at, token.namespace, token.name),
    )
    return frozenset(token.uid for token in oldest_first[rules.max_tokens :])


def _targets(ref: TargetRef, name: str, labels: Mapping[str, str]) -> bool:
    if ref.name is not None:
        return ref.name == name
    return ref.selector is None or selects(ref.selector, labels)


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches, as in Kubernetes: all rows hold; NotIn holds without a label."""
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    for row in selector.match_expressions:
        match row.operator:
            case "In":
                holds = labels.get(row.key) in row.values
            case "NotIn":
                holds = labels.get(row.key) not in row.values
            case "Exists":
                holds = row.key in labels
            case "DoesNotExist":
                holds = row.key not in labels
        if not holds:
            return False
    return True
