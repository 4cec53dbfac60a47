"""Which tokens are too many for the `maxTokens` of a policy, kept up as tokens come and go.

Counting anew for each of thousands of tokens that come at once takes longer than all the rest of their
rounds. So members are kept per policy, and only where there are more than allowed are they put in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moleport_operator.plan.attachment import above_quota
from moleport_operator.queue import Key
from moleport_operator.resources import Meta, TunnelPolicy


class Quotas:
    """Members of the policies that count tokens."""

    def __init__(self, attaches: Callable[[TunnelPolicy, Meta], bool]) -> None:
        self._attaches = attaches
        self._policies: dict[Key, TunnelPolicy] = {}
        self._members: dict[Key, dict[Key, Meta]] = {}
        self._above: dict[Key, frozenset[str]] = {}

    def is_above(self, token: Meta) -> bool:
        """Whether a policy of the token has enough older ones."""
        return any(token.uid in uids for uids in self._above.values())

    def put_policy(self, key: Key, policy: TunnelPolicy, tokens: Mapping[Key, Meta]) -> None:
        """Count the tokens of a policy that is new or changed."""
        self.remove_policy(key)
        if policy.spec.tokens is None or policy.spec.tokens.max_tokens is None:
            return
        self._policies[key] = policy
        self._members[key] = {
            name: meta for name, meta in tokens.items() if self._attaches(policy, meta)
        }
        self._count(key)

    def remove_policy(self, key: Key) -> None:
        """Forget a policy."""
        for known in (self._policies, self._members, self._above):
            known.pop(key, None)

    def recount(self, tokens: Mapping[Key, Meta]) -> None:
        """Count everything anew: what attaches to what may have changed."""
        for key, policy in list(self._policies.items()):
            self.put_policy(key, policy, tokens)

    def put_token(self, key: Key, token: Meta | None) -> set[Key]:
        """Take a token that is new, changed or gone (None); returns the others whose place changed."""
        moved: set[Key] = set()
        for name, policy in self._policies.items():
            members = self._members[name]
            new = token if token is not None and self._attaches(policy, token) else None
            if _place(members.get(key)) == _place(new):
                continue
            if new is None:
                del members[key]
            else:
                members[key] = new
            before = self._above[name]
            changed = self._count(name) ^ before
            if changed:
                moved |= {other for other, meta in members.items() if meta.uid in changed}
        return moved - {key}

    def _count(self, key: Key) -> frozenset[str]:
        policy, members = self._policies[key], self._members[key]
        rules = policy.spec.tokens
        is_within = rules is None or len(members) <= (rules.max_tokens or 0)
        self._above[key] = frozenset() if is_within else above_quota(policy, members.values())
        return self._above[key]


def _place(token: Meta | None) -> tuple[object, ...] | None:
    return None if token is None else (token.uid, token.created_at, token.is_deleting)
