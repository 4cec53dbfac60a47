"""The controller: what is heard becomes keys, keys become rounds, and a round says when the next one is.

Workers take keys from the queue. What is slow and shared runs beside them, in `upkeep.py`: the probe of a
server that is down, the resync, the fetch of usage, and the sweep of what nobody owns any more.

| a round ends with | the next one comes |
|---|---|
| success | when time makes something due, at the latest at the next resync |
| `Conflict`, its own deadline | soon, with growing delays |
| `Rejected`, `InvalidResource` | when something changes, or after half an hour |
| `Denied`, `ClusterUnavailable` | with growing delays |
| `ServerUnavailable` | when the server is back, spread over seconds; also with growing delays |
| anything else: a bug | with growing delays; logged with its traceback |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.clock import Clock
from moleport_operator.errors import (
    Conflict,
    InvalidResource,
    OperatorError,
    Rejected,
    ServerUnavailable,
    Unavailable,
)
from moleport_operator.metrics import Instruments
from moleport_operator.plan.records import ConnectionFacts
from moleport_operator.policy_reconciler import PolicyReconciler
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import (
    CLUSTER_POLICIES,
    POLICIES,
    TOKENS,
    Kind,
    read_policy,
    read_token,
)
from moleport_operator.token_reconciler import Surroundings, TokenReconciler

logger = logging.getLogger(__name__)

KINDS: Final = {kind.plural: kind for kind in (TOKENS, POLICIES, CLUSTER_POLICIES)}
REJECTED_SECONDS: Final = 1800.0
"""For what only a change can heal, and changes are told: a second look, in case one was missed."""
CONFLICTS_TO_TELL: Final = 5
"""In a row: one is everyday life, more are somebody who writes the same object again and again."""
RATE_AFTER_OUTAGE: Final = 200.0
MOST_SPREAD_SECONDS: Final = 20.0
"""After an outage rounds come at this rate, but all within this time."""


class Controller:
    """Turns changes into rounds."""

    def __init__(
        self,
        *,
        cache: Cache,
        queue: WorkQueue,
        breaker: Breaker,
        tokens: TokenReconciler,
        policies: PolicyReconciler,
        instruments: Instruments,
        clock: Clock,
        random: Callable[[], float],
        facts: Callable[[], ConnectionFacts | None],
    ) -> None:
        """Make a controller.

        Args:
            cache: what the cluster holds.
            queue: what needs a round.
            breaker: tells when the server is back.
            tokens: rounds for TunnelTokens.
            policies: rounds for policies.
            instruments: counts rounds.
            clock: wall and monotonic time.
            random: numbers from 0 to 1, to spread.
            facts: what Secrets tell about the server; None until it has answered once.
        """
        self._cache = cache
        self._queue = queue
        self._breaker = breaker
        self._tokens = tokens
        self._policies = policies
        self._instruments = instruments
        self._clock = clock
        self._random = random
        self._facts = facts
        self._waiting: set[Key] = set()
        """Keys whose round the server's absence ended."""
        self._awaiting: set[Key] = set()
        """Tokens that can go on when the server has their policies."""
        breaker.when_closed = self._server_is_back

    def heard(self, plural: str, event: str | None, body: Mapping[str, Any]) -> None:
        """Take an event of the watch."""
        if plural == "namespaces":
            self._heard_namespace(event, body)
            return
        kind = KINDS[plural]
        if event == "DELETED":
            meta = body["metadata"]
            self.removed(kind, meta.get("namespace", ""), meta["name"])
            return
        self.seen(kind, body)

    def seen(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take an object as it is now."""
        key, is_changed = self._cache.put(kind, body)
        if not is_changed:
            return
        self._queue.add(key)
        self._concerns_others(kind, key)

    def removed(self, kind: Kind, namespace: str, name: str) -> None:
        """Take the end of an object."""
        key = self._cache.remove(kind, namespace, name)
        self._queue.forget(key)
        self._waiting.discard(key)
        self._awaiting.discard(key)
        self._concerns_others(kind, key)

    def remember(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Take what one of our own writes answered: it needs no round of its own."""
        if not self._cache.holds(kind, body):
            # The watch will tell the same, and one that is deaf shows by not doing so.
            self._instruments.writes.labels(kind.plural).set(self._clock.now())
        self._cache.refresh(kind, body)

    def everything_again(self, *, spread_seconds: float) -> None:
        """Give every resource a round within a time, policies first."""
        policies = [key for kind in (POLICIES, CLUSTER_POLICIES) for key in self._cache.keys(kind)]
        for key in policies:
            self._queue.add(key)
        keys = self._cache.keys(TOKENS)
        for number, key in enumerate(keys):
            self._queue.add_after(key, spread_seconds * (number + self._random()) / len(keys))

    def server_was_replaced(self) -> None:
        """Bring everything to a server that has a new database."""
        logger.warning("the server has a new database; everything is brought to it again")
        self._cache.forget_accepted()
        count = len(self._cache.keys(TOKENS))
        spread = min(MOST_SPREAD_SECONDS, count / RATE_AFTER_OUTAGE)
        self.everything_again(spread_seconds=spread)

    async def work(self) -> None:
        """Take keys and run their rounds, until cancelled."""
        while True:
            key = await self._queue.take()
            try:
                await self._round(key)
            finally:
                self._queue.done(key)

    async def _round(self, key: Key) -> None:
        controller = KINDS[key.plural].name.lower()
        began = self._clock.monotonic()
        result = "error"
        try:
            recheck_at = await self._reconcile(key)
        except (Conflict, TimeoutError) as error:
            result = "requeue"
            self._queue.retry(key)
            if self._queue.failures(key) >= CONFLICTS_TO_TELL:
                self._log(key, error)
        except (Rejected, InvalidResource) as error:
            self._instruments.terminal_errors.labels(controller).inc()
            self._log(key, error)
            self._queue.forget(key)
            self._queue.add_after(key, REJECTED_SECONDS)
        except OperatorError as error:
            self._instruments.errors.labels(controller).inc()
            if isinstance(error, ServerUnavailable):
                self._waiting.add(key)
            if not self._breaker.is_open:
                self._log(key, error)
            after = error.retry_after if isinstance(error, Unavailable) else None
            self._queue.retry(key, at_least=after or 0.0)
        except Exception:
            self._instruments.panics.labels(controller).inc()
            logger.exception("a round met a bug", extra=_fields(key))
            self._queue.retry(key)
        else:
            self._queue.forget(key)
            self._waiting.discard(key)
            result = "success"
            if recheck_at is not None:
                result = "requeue_after"
                self._queue.add_after(key, max(1.0, recheck_at - self._clock.now()))
        finally:
            self._instruments.reconciles.labels(controller, result).inc()
            seconds = self._clock.monotonic() - began
            self._instruments.reconcile_seconds.labels(controller).observe(seconds)

    async def _reconcile(self, key: Key) -> int | None:
        """Run one round; returns when the next is due, or None."""
        body = self._cache.get(key)
        if body is None:
            return None
        if key.plural != TOKENS.plural:
            await self._reconcile_policy(key, body)
            return None
        token = read_token(body)
        surroundings = Surroundings(
            policies=self._cache.policies_of(token.meta),
            is_above_quota=self._cache.is_above_quota(token.meta),
            facts=self._facts(),
        )
        # Before the round: a policy that is taken while it runs has to find it here.
        self._awaiting.add(key)
        outcome = await self._tokens.reconcile(token, surroundings)
        if not outcome.awaits_policies:
            self._awaiting.discard(key)
        if outcome.is_gone:
            self._queue.forget(key)
        return outcome.recheck_at

    async def _reconcile_policy(self, key: Key, body: Mapping[str, Any]) -> None:
        policy = read_policy(body)
        attached = self._cache.tokens_of(policy)
        outcome = await self._policies.reconcile(
            policy,
            attached_tokens=len(attached),
            neighbours=self._cache.neighbours(policy, attached),
        )
        if self._cache.set_users(key, policy.meta.uid, outcome.users):
            self._neighbours_again(key)
        if outcome.is_changed:
            # Their rounds may have been quicker than this one, and told what held before.
            for token in attached:
                self._queue.add(token)
        if outcome.is_accepted and self._cache.set_accepted(policy.meta.uid):
            for token in self._awaiting.intersection(attached):
                self._queue.add(token)

    def _heard_namespace(self, event: str | None, body: Mapping[str, Any]) -> None:
        meta = body["metadata"]
        labels = None if event == "DELETED" else meta.get("labels") or {}
        if self._cache.set_namespace(meta["name"], labels) and self._cache.keys(CLUSTER_POLICIES):
            self._tokens_again(meta["name"])

    def _concerns_others(self, kind: Kind, key: Key) -> None:
        if kind is TOKENS:
            # Its coming or going moves the others' places, and the counts in policies.
            for token in self._cache.take_moved():
                self._queue.add(token)
            for policy in self._cache.policy_keys_for(key):
                self._queue.add_after(policy, 1.0)
        else:
            self._tokens_again(key.namespace)
            self._neighbours_again(key)

    def _neighbours_again(self, policy: Key) -> None:
        """Give the policies a round whose passwords may be at odds with those of another one, or no more."""
        for key in self._cache.password_policies(policy.namespace):
            if key != policy:
                self._queue.add_after(key, 1.0)

    def _tokens_again(self, namespace: str) -> None:
        """Give the tokens of a namespace (empty: all) a round."""
        for key in self._cache.keys(TOKENS):
            if not namespace or key.namespace == namespace:
                self._queue.add(key)

    def _server_is_back(self) -> None:
        keys, self._waiting = sorted(self._waiting), set()
        spread = min(MOST_SPREAD_SECONDS, len(keys) / RATE_AFTER_OUTAGE)
        logger.info("the server is back", extra={"waiting": len(keys)})
        for key in keys:
            self._queue.forget(key)
            self._queue.add_after(key, spread * self._random())

    def _log(self, key: Key, error: Exception) -> None:
        logger.warning(
            "round failed",
            extra={**_fields(key), "error": str(error), "kind": type(error).__name__},
        )


def _fields(key: Key) -> dict[str, str]:
    return {"resource": key.plural, "namespace": key.namespace, "token": key.name}
