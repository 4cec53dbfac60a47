"""What the cluster was last seen to hold: bodies of our resources and the labels of namespaces.

Fed by the watch, by our own writes, and by a full list at each resync, which also drops what a watch forgot
to tell. Answers which policies a token has without asking anybody. Bounded by the cluster itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moleport_operator.errors import InvalidResource
from moleport_operator.plan.attachment import attached_policy, attaches
from moleport_operator.plan.policy import auth_secret_name
from moleport_operator.plan.records import AttachedPolicy
from moleport_operator.queue import Key
from moleport_operator.quotas import Quotas
from moleport_operator.resources import (
    CLUSTER_POLICIES,
    POLICIES,
    TOKENS,
    Kind,
    Meta,
    TunnelPolicy,
    read_meta,
    read_policy,
)
from moleport_operator.tallies import Tallies

Body = Mapping[str, Any]


class Cache:
    """Bodies by key."""

    def __init__(self) -> None:
        self._bodies: dict[str, dict[Key, Body]] = {
            kind.plural: {} for kind in (TOKENS, POLICIES, CLUSTER_POLICIES)
        }
        self._metas: dict[Key, Meta] = {}
        """Of tokens, read once per change."""
        self._policies: dict[str, dict[Key, TunnelPolicy]] = {}
        """By namespace; those of the cluster are in none."""
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._accepted: set[str] = set()
        """Uids of policies that the server has taken since we run."""
        self._users: dict[str, bytes] = {}
        """Marks of the passwords of policies, by uid; of those that had a round since we run."""
        self._quotas = Quotas(self._is_attached)
        self.tallies = Tallies()
        self._moved: set[Key] = set()
        """Tokens whose place within a quota changed because others came or went."""

    def put(self, kind: Kind, body: Body) -> tuple[Key, bool]:
        """Remember a body; returns its key and whether more than its status changed.

        The watch tells what our own writes made before it has told what was there before them: an older
        body of the same object changes nothing.
        """
        body = {**body, "metadata": {**body["metadata"]}}
        body["metadata"].pop("managedFields", None)
        meta = read_meta(body)
        key = Key(kind.plural, meta.namespace, meta.name)
        old = self._bodies[kind.plural].get(key)
        if old is not None and _is_older(meta, old["metadata"]):
            return key, False
        self._bodies[kind.plural][key] = body
        if kind is TOKENS:
            self.tallies.put(key, body)
        is_changed = old is None or _matter(old) != _matter(body)
        if is_changed:
            if kind is TOKENS:
                self._metas[key] = meta
                self._moved |= self._quotas.put_token(key, meta)
            else:
                self._read_policy(key, body)
        return key, is_changed

    def holds(self, kind: Kind, body: Body) -> bool:
        """Whether this very version of an object is known already."""
        meta = body["metadata"]
        key = Key(kind.plural, meta.get("namespace", ""), meta["name"])
        known = self._bodies[kind.plural].get(key)
        return known is not None and (
            known["metadata"]["resourceVersion"] == meta["resourceVersion"]
        )

    def remove(self, kind: Kind, namespace: str, name: str) -> Key:
        """Forget a body."""
        key = Key(kind.plural, namespace, name)
        body = self._bodies[kind.plural].pop(key, None)
        self._metas.pop(key, None)
        if (policies := self._policies.get(namespace)) is not None:
            policies.pop(key, None)
            if not policies:
                del self._policies[namespace]
        self.tallies.remove(key)
        if body is not None:
            self._accepted.discard(body["metadata"]["uid"])
            self._users.pop(body["metadata"]["uid"], None)
            if kind is TOKENS:
                self._moved |= self._quotas.put_token(key, None)
            else:
                self._quotas.remove_policy(key)
        return key

    def refresh(self, kind: Kind, body: Body) -> None:
        """Remember what one of our own writes answered, unless the object went meanwhile."""
        meta = read_meta(body)
        known = self.get(Key(kind.plural, meta.namespace, meta.name))
        if known is not None and known["metadata"]["uid"] == meta.uid:
            self.put(kind, body)

    def replace_all(self, kind: Kind, bodies: Iterable[Body], version: str) -> list[Key]:
        """Take a full list; returns the keys that it no longer has, which are forgotten.

        Args:
            kind: of all bodies.
            bodies: everything that there is.
            version: of the list; what the watch has told since then stays.
        """
        listed = {self.put(kind, body)[0] for body in bodies}
        gone = [
            key
            for key, body in self._bodies[kind.plural].items()
            if key not in listed and not _is_newer(body, version)
        ]
        for key in gone:
            self.remove(kind, key.namespace, key.name)
        return gone

    def get(self, key: Key) -> Body | None:
        """Return a body, or None."""
        return self._bodies[key.plural].get(key)

    def keys(self, kind: Kind) -> list[Key]:
        """Return all keys of a kind."""
        return list(self._bodies[kind.plural])

    def bodies(self, kind: Kind) -> Iterator[Body]:
        """Yield all bodies of a kind."""
        yield from self._bodies[kind.plural].values()

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """Remember the labels of a namespace (None: it is gone); returns whether they changed."""
        old = self._namespaces.get(name)
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = dict(labels)
        if old != labels:
            self._quotas.recount(self._metas)
        return old != labels

    def set_accepted(self, policy_uid: str) -> bool:
        """Note that the server has a policy; returns whether that is news."""
        is_news = policy_uid not in self._accepted
        self._accepted.add(policy_uid)
        return is_news

    def forget_accepted(self) -> None:
        """Note that the server may have lost every policy."""
        self._accepted.clear()

    def set_users(self, key: Key, policy_uid: str, mark: bytes) -> bool:
        """Note the mark of the passwords that the server has for a policy; returns whether that is news.

        A policy that went meanwhile is none.
        """
        body = self.get(key)
        if body is None or body["metadata"]["uid"] != policy_uid:
            return False
        is_news = self._users.get(policy_uid) != mark
        self._users[policy_uid] = mark
        return is_news

    def password_policies(self, namespace: str) -> list[Key]:
        """Return the keys of the policies of a namespace that ask for passwords."""
        policies = self._policies.get(namespace, {})
        return [key for key, policy in policies.items() if auth_secret_name(policy) is not None]

    def neighbours(self, policy: TunnelPolicy, attached: Iterable[Key]) -> dict[str, bytes | None]:
        """Return the marks of the passwords of policies that share a token with one, by name.

        Args:
            policy: the one; it is none of its neighbours.
            attached: its tokens.

        Returns:
            Marks as of `set_users`; None for a policy without one yet.
        """
        tokens = [self._metas[key] for key in attached if key in self._metas]
        return {
            other.meta.name: self._users.get(other.meta.uid)
            for other in self._policies.get(policy.meta.namespace, {}).values()
            if other.meta.uid != policy.meta.uid
            and auth_secret_name(other) is not None
            and any(self._is_attached(other, token) for token in tokens)
        }

    def policies_of(self, token: Meta) -> tuple[AttachedPolicy, ...]:
        """Return the policies that attach to a token.

        Raises:
            InvalidResource: one of them cannot be read; its name is in the text.
        """
        found = []
        for policy in self._attached(token):
            is_accepted = policy.meta.uid in self._accepted
            try:
                found.append(attached_policy(policy, is_accepted=is_accepted))
            except InvalidResource as error:
                raise InvalidResource(f"policy {policy.meta.name}: {error}") from error
        return tuple(found)

    def is_above_quota(self, token: Meta) -> bool:
        """Whether a policy of the token has enough older ones."""
        return self._quotas.is_above(token)

    def tokens_of(self, policy: TunnelPolicy) -> list[Key]:
        """Return the keys of the tokens that a policy attaches to."""
        return [key for key, meta in self._metas.items() if self._is_attached(policy, meta)]

    def policy_keys_for(self, token: Key) -> list[Key]:
        """Return the keys of policies that a token may have, or may have had."""
        return [key for policies in self._policies_near(token.namespace) for key in policies]

    def take_moved(self) -> set[Key]:
        """Return, once, the tokens whose place within a quota changed because of others."""
        moved, self._moved = self._moved, set()
        return moved

    def _attached(self, token: Meta) -> Iterator[TunnelPolicy]:
        for policies in self._policies_near(token.namespace):
            for policy in policies.values():
                if self._is_attached(policy, token):
                    yield policy

    def _policies_near(self, namespace: str) -> list[dict[Key, TunnelPolicy]]:
        """Return the policies of a namespace, and those of the cluster."""
        return [self._policies[place] for place in ("", namespace) if place in self._policies]

    def _is_attached(self, policy: TunnelPolicy, token: Meta) -> bool:
        return attaches(policy, token, self._namespaces.get(token.namespace, {}))

    def _read_policy(self, key: Key, body: Body) -> None:
        try:
            policy = read_policy(body)
        except InvalidResource:
            # Its own round says so; what it said before stays in force here.
            return
        self._policies.setdefault(key.namespace, {})[key] = policy
        self._quotas.put_policy(key, policy, self._metas)


def _is_older(new: Meta, old: Mapping[str, Any]) -> bool:
    """Whether a body is of an earlier version than another one of the same object."""
    before = str(old.get("resourceVersion", ""))
    if new.uid != old["uid"] or not (before.isdecimal() and new.resource_version.isdecimal()):
        return False
    return int(new.resource_version) < int(before)


def _is_newer(body: Body, version: str) -> bool:
    own = str(body["metadata"].get("resourceVersion", ""))
    return own.isdecimal() and version.isdecimal() and int(own) > int(version)


def _matter(body: Body) -> tuple[object, ...]:
    meta = body["metadata"]
    return (
        meta.get("uid"),
        meta.get("generation"),
        meta.get("labels"),
        meta.get("annotations"),
        meta.get("deletionTimestamp"),
        meta.get("finalizers"),
    )
