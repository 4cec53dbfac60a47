"""Brings policies to the server, and takes them away again after their tokens are free of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from moleport_operator.clock import Clock
from moleport_operator.cluster import Events, Objects, Secrets
from moleport_operator.errors import (
    Conflict,
    InvalidResource,
    OperatorError,
    Rejected,
    ServerUnavailable,
)
from moleport_operator.plan.policy import (
    AUTH_CONFLICT,
    PolicyResult,
    PolicyWish,
    ServerPolicy,
    auth_secret_name,
    parse_htpasswd,
    password_conflict,
    policy_status,
    policy_transition,
    users_mark,
    wanted_policy,
)
from moleport_operator.plan.status import Transition
from moleport_operator.resources import CLUSTER_POLICIES, POLICIES, Kind, TunnelPolicy

ROUND_SECONDS: Final = 60.0
AUTH_KEY: Final = "auth"


class PolicyServer(Protocol):
    """The policy calls of the tunnel server; errors as in `token_server.py`."""

    async def get_policy(self, policy_id: str) -> ServerPolicy | None:
        """Return a policy, or None."""
        ...

    async def put_policy(self, policy_id: str, wish: PolicyWish, etag: str | None) -> ServerPolicy:
        """Create (no etag) or replace a policy."""
        ...

    async def delete_policy(self, policy_id: str) -> None:
        """Delete a policy; one that is gone is no error.

        Raises:
            Conflict: tokens still have it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutcome:
    """How a round ended well."""

    is_gone: bool = False
    is_accepted: bool = False
    is_changed: bool = False
    """The server had it already, and in another form: what holds for its tokens is another now."""
    users: bytes = field(default=b"", repr=False)
    """The mark of the passwords that the server has for it."""


class PolicyReconciler:
    """Brings one policy after another to where its spec says."""

    def __init__(
        self,
        *,
        objects: Objects,
        secrets: Secrets,
        events: Events,
        server: PolicyServer,
        clock: Clock,
        owner_cluster: str,
    ) -> None:
        self._objects = objects
        self._secrets = secrets
        self._events = events
        self._server = server
        self._clock = clock
        self._owner_cluster = owner_cluster

    async def reconcile(
        self, policy: TunnelPolicy, *, attached_tokens: int, neighbours: Mapping[str, bytes | None]
    ) -> PolicyOutcome:
        """Do everything that is due for a policy, and report it in its status.

        Args:
            policy: as the cluster has it.
            attached_tokens: how many tokens have it.
            neighbours: as of `password_conflict`.

        Raises:
            OperatorError: something failed; the status says so where that was possible.
        """
        kind = kind_of(policy)
        async with asyncio.timeout(ROUND_SECONDS):
            if policy.meta.is_deleting:
                await self._delete(kind, policy)
                return PolicyOutcome(is_gone=True)
            if not policy.meta.has_finalizer:
                version = await self._objects.set_finalizer(kind, policy.meta, is_wanted=True)
                policy = replace(policy, meta=replace(policy.meta, resource_version=version))
            try:
                result, outcome = await self._put(policy)
            except Conflict:
                raise
            except OperatorError as error:
                await self._report(kind, policy, _failure(error), attached_tokens)
                raise
            if not attached_tokens and result.accepted == "Accepted":
                result = PolicyResult("TargetNotFound", result.enforced, "no token has it yet")
            if text := password_conflict(policy, outcome.users, neighbours):
                result = PolicyResult(result.accepted, AUTH_CONFLICT, text)
            await self._report(kind, policy, result, attached_tokens)
            return outcome

    async def _put(self, policy: TunnelPolicy) -> tuple[PolicyResult, PolicyOutcome]:
        users = None
        secret_name = auth_secret_name(policy)
        if secret_name is not None:
            secret = await self._secrets.read_secret(policy.meta.namespace, secret_name)
            users = (
                None if secret is None else parse_htpasswd(secret.content.values.get(AUTH_KEY, ""))
            )
        wish = wanted_policy(policy, self._owner_cluster, users)
        stored = await self._server.get_policy(policy.meta.uid)
        # Always: the server shows no passwords, and putting what is there changes nothing.
        etag = stored.etag if stored else None
        put = await self._server.put_policy(policy.meta.uid, wish, etag)
        outcome = PolicyOutcome(
            is_accepted=True,
            is_changed=etag is not None and put.etag != etag,
            users=users_mark(wish.users),
        )
        if wish.is_auth_unresolved:
            text = f"Secret {secret_name} has no key {AUTH_KEY} with lines of htpasswd (bcrypt)"
            text = f"{text}; HTTP is closed until then"
            return PolicyResult("SecretNotFound", "Enforced", text), outcome
        return PolicyResult("Accepted", "Enforced"), outcome

    async def _delete(self, kind: Kind, policy: TunnelPolicy) -> None:
        meta = policy.meta
        if not meta.has_finalizer:
            return
        if meta.is_forced:
            await self._events.emit(kind, meta, _FORCED)
        else:
            stored = await self._server.get_policy(meta.uid)
            owner = None if stored is None else stored.owner
            if owner is not None and (owner.cluster, owner.uid) == (self._owner_cluster, meta.uid):
                # Refused while tokens have it: they are freed by rounds of their own.
                await self._server.delete_policy(meta.uid)
        await self._objects.set_finalizer(kind, meta, is_wanted=False)

    async def _report(
        self, kind: Kind, policy: TunnelPolicy, result: PolicyResult, attached_tokens: int
    ) -> None:
        now = int(self._clock.now())
        status = policy_status(policy, result, attached_tokens=attached_tokens, now=now)
        if dict(policy.status) == status:
            return
        await self._objects.write_status(kind, policy.meta, status)
        event = policy_transition(policy.status, status)
        if event is not None:
            await self._events.emit(kind, policy.meta, event)


def kind_of(policy: TunnelPolicy) -> Kind:
    """Return the kind of a policy."""
    return POLICIES if policy.kind == "TunnelPolicy" else CLUSTER_POLICIES


_FORCED = Transition(
    "ForceDeleted", "let go without asking the server, as its annotation asks", is_warning=True
)


def _failure(error: OperatorError) -> PolicyResult:
    match error:
        case ServerUnavailable():
            return PolicyResult("Accepted", "ServerUnavailable", str(error))
        case Rejected() | InvalidResource():
            return PolicyResult("Invalid", "Invalid", str(error))
        case _:
            return PolicyResult("Accepted", "Pending", str(error))
