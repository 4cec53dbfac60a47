"""A cluster and a tunnel server in memory, behind the operator's ports, that fail where a test wants.

Every port call passes `World.call`, which may crash the operator before or after the call's effect, or
answer with one of the errors of a real network. Strangers' objects are in both places from the start:
whoever changes or deletes one of them is caught at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count
from typing import Any, TypeVar

from helpers.clock import FakeClock
from moleport_operator.credentials import digest, fingerprint
from moleport_operator.errors import (
    ClusterUnavailable,
    Conflict,
    ForeignOwner,
    Rejected,
    ServerUnavailable,
)
from moleport_operator.plan.records import (
    AttachedPolicy,
    ConnectionFacts,
    SecretContent,
    SecretView,
    ServerToken,
    Slot,
    TokenWish,
)
from moleport_operator.plan.secret import TOKEN_ID, claim_labels
from moleport_operator.plan.status import Transition
from moleport_operator.resources import FINALIZER, Kind, Meta, TokenSpec, TunnelToken
from moleport_operator.token_reconciler import Surroundings, TokenOutcome, TokenReconciler

T = TypeVar("T")
CLUSTER = "cluster-1"
FACTS = ConnectionFacts(agent_url="https://control.tunnels.test", domains=("tunnels.test",))


class Crash(BaseException):
    """The operator's process ended here."""


class Fault(Enum):
    """What may happen to one call."""

    NONE = "none"
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    REFUSED = "connection refused"
    TIMEOUT_AFTER = "timeout after the effect"
    CONFLICT = "409, 410 or 412"
    THROTTLED = "429"
    REJECTED = "422"


@dataclass(slots=True)
class StoredSlot:
    sha256: str
    not_after: int | None


@dataclass(slots=True)
class StoredToken:
    wish: TokenWish
    version: int
    slots: dict[int, StoredSlot] = field(default_factory=dict)


@dataclass(slots=True)
class StoredSecret:
    uid: str
    version: int
    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    is_owned: bool = False


class World:
    """Everything outside of the operator."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.next_fault: Callable[[], Fault] = lambda: Fault.NONE
        self.after_call: Callable[[], None] = lambda: None
        self.tokens: dict[str, TunnelToken] = {}
        """Resources, by uid."""
        self.secrets: dict[tuple[str, str], StoredSecret] = {
            ("default", "strangers"): StoredSecret("s-0", 1, {"app": "shop"}, {}, {"token": "hers"})
        }
        self.server: dict[str, StoredToken] = {}
        self.effective: dict[str, Any] = {}
        """What the merge of a token with its policies leaves, of every token."""
        self.was_listed: dict[str, ServerToken] = {}
        self.events: list[Transition] = []
        self.calls: list[str] = []
        self.counts: Counter[str] = Counter()
        self._numbers = count(1)
        self._random = count(1)

    def number(self) -> int:
        return next(self._numbers)

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def random_bytes(self, size: int) -> bytes:
        return bytes((next(self._random) * 37 + i) % 248 for i in range(size))

    def reconciler(self) -> TokenReconciler:
        """Start an operator anew, as after a crash."""
        return TokenReconciler(
            objects=self,
            secrets=self,
            events=self,
            server=self,
            clock=self.clock,
            random_bytes=self.random_bytes,
            owner_cluster=CLUSTER,
            tally=self,
        )

    async def round(
        self,
        uid: str,
        *,
        policies: Iterable[AttachedPolicy] = (),
        is_above_quota: bool = False,
    ) -> TokenOutcome | None:
        """Run one round for a token, by an operator without memory; None if the token is gone."""
        token = self.tokens.get(uid)
        if token is None:
            return None
        around = Surroundings(policies=tuple(policies), is_above_quota=is_above_quota, facts=FACTS)
        return await self.reconciler().reconcile(token, around)

    def create(self, name: str = "shop", **spec: Any) -> str:
        """Apply a TunnelToken; returns its uid."""
        uid = f"00000000-0000-4000-8000-{self.number():012d}"
        meta = Meta(
            uid=uid,
            namespace="default",
            name=name,
            generation=1,
            resource_version=str(self.number()),
            created_at=self.now,
            is_deleting=False,
            finalizers=("someone.else/finalizer",),
            labels={},
            annotations={},
        )
        self.tokens[uid] = TunnelToken(meta=meta, spec=TokenSpec(**spec))
        return uid

    def edit(self, uid: str, *, spec: TokenSpec | None = None, **meta: Any) -> None:
        """Change a token as its owner would."""
        token = self.tokens[uid]
        changed = replace(token.meta, resource_version=str(self.number()), **meta)
        self.tokens[uid] = replace(token, meta=changed, spec=spec or token.spec)

    def delete(self, uid: str) -> None:
        """Ask for the deletion of a token."""
        self.edit(uid, is_deleting=True)
        self._collect(uid)

    def secret_of(self, uid: str) -> StoredSecret | None:
        token = self.tokens[uid]
        return self.secrets.get((token.meta.namespace, token.secret_name))

    def valid_digests(self, uid: str) -> set[str]:
        """Return the digests that the server lets in now."""
        stored = self.server.get(uid)
        if stored is None or stored.wish.suspended:
            return set()
        return {
            slot.sha256
            for slot in stored.slots.values()
            if slot.not_after is None or self.now < slot.not_after
        }

    def is_served(self, uid: str) -> bool:
        """Whether the credential in the token's Secret is let in now."""
        secret = self.secret_of(uid)
        text = None if secret is None else secret.values.get("token")
        return text is not None and digest(text) in self.valid_digests(uid)

    def _collect(self, uid: str) -> None:
        """Do what the API server and its garbage collector do after a deletion."""
        token = self.tokens[uid]
        ours = [name for name in token.meta.finalizers if name == FINALIZER]
        if token.meta.is_deleting and not ours:
            secret = self.secret_of(uid)
            if secret is not None and secret.is_owned and secret.labels.get(TOKEN_ID) == uid:
                del self.secrets[token.meta.namespace, token.secret_name]
            del self.tokens[uid]

    async def call(self, name: str, work: Callable[[], T], *, is_server: bool) -> T:
        """Run a port call with what fate has for it."""
        self.calls.append(name)
        unavailable = ServerUnavailable if is_server else ClusterUnavailable
        fault = self.next_fault()
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.REFUSED:
            raise unavailable(f"{name}: connection refused")
        if fault is Fault.THROTTLED:
            raise unavailable(f"{name}: slow down", retry_after=3)
        if fault is Fault.CONFLICT:
            raise Conflict(name)
        if fault is Fault.REJECTED and is_server:
            raise Rejected("invalid", f"{name}: not like this")
        result = work()
        self.after_call()
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.TIMEOUT_AFTER:
            raise unavailable(f"{name}: no answer in time")
        return result

    # The cluster's ports.

    def set_finalizer(self, kind: Kind, meta: Meta, *, is_wanted: bool) -> Coroutine[Any, Any, str]:
        def work() -> str:
            token = self.tokens.get(meta.uid)
            if token is None or token.meta.resource_version != meta.resource_version:
                raise Conflict("object has changed")
            others = tuple(name for name in token.meta.finalizers if name != FINALIZER)
            self.edit(meta.uid, finalizers=(*others, FINALIZER) if is_wanted else others)
            version = self.tokens[meta.uid].meta.resource_version
            self._collect(meta.uid)
            return version

        return self.call("set_finalizer", work, is_server=False)

    def write_status(
        self, kind: Kind, meta: Meta, status: Mapping[str, Any]
    ) -> Coroutine[Any, Any, None]:
        def work() -> None:
            if meta.uid in self.tokens:
                token = self.tokens[meta.uid]
                # Through JSON, as on the way to a real API server.
                copied = json.loads(json.dumps(status))
                version = replace(token.meta, resource_version=str(self.number()))
                self.tokens[meta.uid] = replace(token, meta=version, status=copied)

        return self.call("write_status", work, is_server=False)

    def read_secret(self, namespace: str, name: str) -> Coroutine[Any, Any, SecretView | None]:
        def work() -> SecretView | None:
            stored = self.secrets.get((namespace, name))
            return None if stored is None else self._view(stored)

        return self.call("read_secret", work, is_server=False)

    def claim_secret(self, token: TunnelToken) -> Coroutine[Any, Any, SecretView]:
        def work() -> SecretView:
            key = (token.meta.namespace, token.secret_name)
            if key in self.secrets:
                raise Conflict("already exists")
            labels = claim_labels(token.meta.uid)
            is_owned = token.spec.secret.deletion_policy == "Delete"
            self.secrets[key] = StoredSecret(
                f"s-{self.number()}", self.number(), labels, is_owned=is_owned
            )
            return self._view(self.secrets[key])

        return self.call("claim_secret", work, is_server=False)

    def write_secret(
        self, token: TunnelToken, content: SecretContent, seen: SecretView
    ) -> Coroutine[Any, Any, SecretView]:
        def work() -> SecretView:
            stored = self.secrets.get((token.meta.namespace, token.secret_name))
            if stored is None or (stored.uid, str(stored.version)) != (
                seen.uid,
                seen.resource_version,
            ):
                raise Conflict("object has changed")
            assert stored.labels.get(TOKEN_ID) == token.meta.uid, "a stranger's Secret was written"
            stored.version = self.number()
            stored.labels = dict(content.labels)
            stored.annotations = dict(content.annotations)
            stored.values = dict(content.values)
            stored.is_owned = content.is_owned
            return self._view(stored)

        return self.call("write_secret", work, is_server=False)

    # What is counted.

    def issued(self, reason: str) -> None:
        self.counts[f"issued {reason}"] += 1

    def rotated(self, *, is_done: bool) -> None:
        self.counts[f"rotated {is_done}"] += 1

    def revoked(self, *, is_done: bool) -> None:
        self.counts[f"revoked {is_done}"] += 1

    async def emit(self, kind: Kind, meta: Meta, event: Transition) -> None:
        self.events.append(event)

    def _view(self, stored: StoredSecret) -> SecretView:
        return SecretView(
            uid=stored.uid,
            resource_version=str(stored.version),
            claimed_by=stored.labels.get(TOKEN_ID),
            content=SecretContent(
                labels=dict(stored.labels),
                annotations=dict(stored.annotations),
                values=dict(stored.values),
                is_owned=stored.is_owned,
            ),
        )

    # The tunnel server's ports.

    def get_token(self, token_id: str) -> Coroutine[Any, Any, ServerToken | None]:
        def work() -> ServerToken | None:
            stored = self.server.get(token_id)
            return None if stored is None else self._server_view(stored)

        return self.call("get_token", work, is_server=True)

    def listed(self, token_id: str) -> ServerToken | None:
        return self.was_listed.pop(token_id, None)

    def list_tokens(self) -> None:
        """Let the operator list what the server has now, for rounds at any later time."""
        self.was_listed = {uid: self._server_view(stored) for uid, stored in self.server.items()}

    def put_token(
        self, token_id: str, wish: TokenWish, etag: str | None
    ) -> Coroutine[Any, Any, ServerToken]:
        def work() -> ServerToken:
            stored = self.server.get(token_id)
            if stored is not None and stored.wish.owner != wish.owner:
                raise ForeignOwner("foreign_owner", "belongs to somebody else")
            if (None if stored is None else str(stored.version)) != etag:
                raise Conflict("precondition failed")
            slots = {} if stored is None else stored.slots
            self.server[token_id] = StoredToken(wish, self.number(), slots)
            return self._server_view(self.server[token_id])

        return self.call("put_token", work, is_server=True)

    def delete_token(self, token_id: str) -> Coroutine[Any, Any, None]:
        def work() -> None:
            stored = self.server.pop(token_id, None)
            assert stored is None or stored.wish.owner is not None, "a stranger's token was deleted"

        return self.call("delete_token", work, is_server=True)

    def put_credential(
        self, token_id: str, revision: int, sha256: str, not_after: int | None
    ) -> Coroutine[Any, Any, Slot]:
        def work() -> Slot:
            stored = self.server.get(token_id)
            if stored is None:
                raise Conflict("token not found")
            stored.slots[revision] = StoredSlot(sha256, not_after)
            return Slot(revision=revision, fingerprint=fingerprint(sha256), not_after=not_after)

        return self.call("put_credential", work, is_server=True)

    def delete_credential(self, token_id: str, revision: int) -> Coroutine[Any, Any, None]:
        def work() -> None:
            stored = self.server.get(token_id)
            if stored is not None:
                stored.slots.pop(revision, None)

        return self.call("delete_credential", work, is_server=True)

    def _server_view(self, stored: StoredToken) -> ServerToken:
        slots = (
            Slot(revision=number, fingerprint=fingerprint(slot.sha256), not_after=slot.not_after)
            for number, slot in sorted(stored.slots.items())
        )
        return ServerToken(
            etag=str(stored.version),
            wish=stored.wish,
            slots=tuple(slots),
            effective=self.effective,
        )
