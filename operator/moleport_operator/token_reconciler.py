"""Carries out plans for TunnelTokens: observe, ask the plan, do one thing, look again.

Holds no state between two rounds. Whatever fails in a round is told in the token's status as far as that
is possible, then handed to the caller, who decides when the next round comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, assert_never

from moleport_operator.clock import Clock
from moleport_operator.cluster import Events, Objects, Secrets
from moleport_operator.credentials import fingerprint, make_credential
from moleport_operator.errors import (
    Conflict,
    Denied,
    InvalidResource,
    OperatorError,
    Rejected,
    ServerUnavailable,
)
from moleport_operator.plan.records import (
    AddFinalizer,
    AttachedPolicy,
    ClaimSecret,
    ConnectionFacts,
    DeleteCredential,
    DeleteToken,
    Fresh,
    IssueCredential,
    PutCredential,
    PutToken,
    ReleaseToken,
    RemoveFinalizer,
    Seen,
    ServerToken,
    Settled,
    Slot,
    TokenAction,
    WriteSecret,
)
from moleport_operator.plan.status import Transition, is_same_status, token_status, transition
from moleport_operator.plan.token import plan_token
from moleport_operator.resources import FINALIZER, FORCE_DELETE, TOKENS, TunnelToken
from moleport_operator.token_server import TokenServer

logger = logging.getLogger(__name__)

MOST_ACTIONS: Final = 24
"""In one round; a first issue takes five. More than this is a plan that does not end: a bug."""
ROUND_SECONDS: Final = 60.0
"""Of one round in all; each call has its own, shorter deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a round needs to know besides the token itself."""

    policies: tuple[AttachedPolicy, ...]
    is_above_quota: bool
    facts: ConnectionFacts | None
    """None: the server has not answered since we run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutcome:
    """How a round ended well.

    Attributes:
        recheck_at: Unix seconds when time alone makes something due, or None.
        is_gone: the finalizer was removed; nothing will come any more.
        awaits_policies: the server has to take a policy first.
    """

    recheck_at: int | None
    is_gone: bool = False
    awaits_policies: bool = False


class Tally(Protocol):
    """Counts what becomes of credentials."""

    def issued(self, reason: str) -> None:
        """The server has a new revision."""
        ...

    def rotated(self, *, is_done: bool) -> None:
        """A revision replaced another one in the Secret, or did not come to it."""
        ...

    def revoked(self, *, is_done: bool) -> None:
        """The server was asked to revoke a token."""
        ...


class TokenReconciler:
    """Brings one TunnelToken after another to where its spec says."""

    def __init__(
        self,
        *,
        objects: Objects,
        secrets: Secrets,
        events: Events,
        server: TokenServer,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        owner_cluster: str,
        tally: Tally,
    ) -> None:
        self._objects = objects
        self._secrets = secrets
        self._events = events
        self._server = server
        self._clock = clock
        self._random_bytes = random_bytes
        self._owner_cluster = owner_cluster
        self._tally = tally

    async def reconcile(self, token: TunnelToken, surroundings: Surroundings) -> TokenOutcome:
        """Do everything that is due for a token, and report it in its status.

        Safe to cancel at any point: the next round starts from what is there.

        Raises:
            OperatorError: something failed; the status says so where that was possible.
        """
        round_ = _Round(
            Seen(
                token=token,
                owner_cluster=self._owner_cluster,
                server=None,
                secret=None,
                policies=surroundings.policies,
                is_above_quota=surroundings.is_above_quota,
                facts=surroundings.facts or _NO_FACTS,
                now=self._now(),
            )
        )
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                settled = await self._run(round_)
        except (Conflict, TimeoutError):
            # Not worth a status: the next round starts at once, with fresh eyes.
            raise
        except OperatorError as error:
            await self._report(round_.seen, _failure(error, token), is_failure=True)
            raise
        if round_.is_gone:
            return TokenOutcome(recheck_at=None, is_gone=True)
        await self._report(round_.seen, settled, is_failure=False)
        return TokenOutcome(
            recheck_at=settled.recheck_at, awaits_policies=bool(round_.seen.awaited_policies)
        )

    async def _run(self, round_: _Round) -> Settled:
        seen = round_.seen
        if not seen.token.meta.is_deleting:
            secret = await self._secrets.read_secret(
                seen.token.meta.namespace, seen.token.secret_name
            )
            round_.seen = seen = replace(seen, secret=secret)
            if (settled := self._settled_as_listed(round_)) is not None:
                return settled
        if not (seen.token.meta.is_deleting and seen.token.meta.is_forced):
            round_.seen = replace(seen, server=await self._server.get_token(seen.token.meta.uid))
            if seen.facts is _NO_FACTS and not seen.token.meta.is_deleting:
                raise ServerUnavailable("the server has not said yet where agents find it")
        for _ in range(MOST_ACTIONS):
            step = plan_token(round_.seen)
            if isinstance(step, Settled):
                return step
            try:
                round_.seen = await self._do(round_.seen, step)
            except BaseException:
                self._count(round_, step, is_done=False)
                raise
            self._count(round_, step, is_done=True)
            if isinstance(step, RemoveFinalizer):
                round_.is_gone = True
                return Settled("Revoking", "")
        raise AssertionError(f"the plan for {seen.token.meta.uid} does not end")

    def _settled_as_listed(self, round_: _Round) -> Settled | None:
        """Return how all is well with what the server has just listed; None: look there.

        Nothing is ever done on the strength of a list, so that it does not matter how old it is.
        """
        listed = self._server.listed(round_.seen.token.meta.uid)
        if listed is None or round_.seen.facts is _NO_FACTS:
            return None
        seen = replace(round_.seen, server=listed)
        step = plan_token(seen)
        if not isinstance(step, Settled):
            return None
        round_.seen = seen
        return step

    def _count(self, round_: _Round, step: TokenAction, *, is_done: bool) -> None:
        """Count what became of an action; a rotation is done when the Secret has it."""
        if isinstance(step, DeleteToken):
            self._tally.revoked(is_done=is_done)
        if isinstance(step, IssueCredential):
            round_.is_rotating = step.reason != "Issued"
            if is_done:
                self._tally.issued(step.reason)
        if round_.is_rotating and (not is_done or isinstance(step, WriteSecret)):
            round_.is_rotating = False
            self._tally.rotated(is_done=is_done)

    async def _do(self, seen: Seen, action: TokenAction) -> Seen:
        token_id, token = seen.token.meta.uid, seen.token
        match action:
            case AddFinalizer():
                return await self._set_finalizer(seen, is_wanted=True)
            case RemoveFinalizer():
                if action.was_forced:
                    await self._events.emit(TOKENS, token.meta, _FORCED)
                return await self._set_finalizer(seen, is_wanted=False)
            case PutToken() | ReleaseToken():
                stored = await self._server.put_token(token_id, action.wish, action.etag)
                return replace(seen, server=stored, was_put=True)
            case DeleteToken():
                await self._server.delete_token(token_id)
                return replace(seen, server=None)
            case ClaimSecret():
                return replace(seen, secret=await self._secrets.claim_secret(token))
            case IssueCredential():
                return await self._issue(seen, action)
            case PutCredential():
                slot = await self._server.put_credential(
                    token_id, action.revision, action.sha256, action.not_after
                )
                return replace(seen, server=_with_slot(seen.server, slot))
            case DeleteCredential():
                await self._server.delete_credential(token_id, action.revision)
                return replace(seen, server=_without_slot(seen.server, action.revision))
            case WriteSecret():
                secret = await self._secrets.write_secret(token, action.content, action.seen)
                return replace(seen, secret=secret, fresh=None)
            case _:
                assert_never(action)

    async def _issue(self, seen: Seen, action: IssueCredential) -> Seen:
        credential = make_credential(self._random_bytes)
        slot = await self._server.put_credential(
            seen.token.meta.uid, action.revision, credential.sha256, action.not_after
        )
        logger.info(
            "credential issued",
            extra={
                "namespace": seen.token.meta.namespace,
                "token": seen.token.meta.name,
                "revision": action.revision,
                "fingerprint": fingerprint(credential.sha256),
                "reason": action.reason,
            },
        )
        fresh = Fresh(
            revision=action.revision,
            credential=credential,
            issued_at=seen.now,
            not_after=action.not_after,
        )
        return replace(seen, server=_with_slot(seen.server, slot), fresh=fresh)

    async def _set_finalizer(self, seen: Seen, *, is_wanted: bool) -> Seen:
        meta = seen.token.meta
        version = await self._objects.set_finalizer(TOKENS, meta, is_wanted=is_wanted)
        others = tuple(name for name in meta.finalizers if name != FINALIZER)
        finalizers = (*others, FINALIZER) if is_wanted else others
        meta = replace(meta, resource_version=version, finalizers=finalizers)
        return replace(seen, token=replace(seen.token, meta=meta))

    async def _report(self, seen: Seen, settled: Settled, *, is_failure: bool) -> None:
        old = seen.token.status
        new = token_status(seen, settled, is_failure=is_failure)
        if is_same_status(old, new):
            return
        await self._objects.write_status(TOKENS, seen.token.meta, new)
        event = transition(old, new)
        if event is not None:
            await self._events.emit(TOKENS, seen.token.meta, event)

    def _now(self) -> int:
        return int(self._clock.now())


@dataclass(slots=True)
class _Round:
    """What a round has seen so far, also when it fails."""

    seen: Seen
    is_gone: bool = False
    is_rotating: bool = False
    """A new revision was asked for, and the Secret does not have it yet."""


_NO_FACTS: Final = ConnectionFacts(agent_url="")

_FORCED: Final = Transition(
    "ForceDeleted",
    f"let go without revoking at the server, as the annotation {FORCE_DELETE} asks",
    is_warning=True,
)


def _failure(error: OperatorError, token: TunnelToken) -> Settled:
    """Return what the status says of an error."""
    if token.meta.is_deleting:
        way_out = f'; to give up what the server has, set the annotation {FORCE_DELETE}: "true"'
        reason = "RevokeFailed" if isinstance(error, Rejected) else "Revoking"
        return Settled(reason, f"{error}{way_out}")
    match error:
        case ServerUnavailable():
            return Settled("ServerUnavailable", str(error))
        case Rejected():
            return Settled("ServerRejected", str(error))
        case InvalidResource():
            return Settled("InvalidSpec", str(error))
        case Denied():
            return Settled("Forbidden", str(error))
        case _:
            return Settled("Pending", str(error))


def _with_slot(server: ServerToken | None, slot: Slot) -> ServerToken | None:
    if server is None:
        return None
    others = (known for known in server.slots if known.revision != slot.revision)
    slots = sorted((*others, slot), key=lambda each: each.revision)
    return replace(server, slots=tuple(slots))


def _without_slot(server: ServerToken | None, revision: int) -> ServerToken | None:
    if server is None:
        return None
    return replace(server, slots=tuple(s for s in server.slots if s.revision != revision))
