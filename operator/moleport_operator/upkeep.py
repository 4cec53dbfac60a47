"""What runs beside the rounds: probing, resync, usage, and the sweep of orphans.

The sweep is the only place that deletes something without a resource asking for it, so it is the most
careful one: only what carries our own owner id, in a namespace that we watch, not kept on purpose, whose
resource the API server itself says is gone, twice, a resync apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.clock import Clock
from moleport_operator.controller import KINDS, Controller
from moleport_operator.errors import OperatorError
from moleport_operator.kube import Kube, NotFound, collection, item
from moleport_operator.metrics import Instruments
from moleport_operator.plan.records import ConnectionFacts, Owner, Usage
from moleport_operator.plan.token import RETAINED
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import CLUSTER_POLICIES, POLICIES, TOKENS, Kind
from moleport_operator.server_bodies import ListedToken, ServerFacts
from moleport_operator.walk import Pages, Walk

logger = logging.getLogger(__name__)

FACTS_SECONDS: Final = 10.0
"""A server without a volume comes back empty, under a new id, and its tokens have to be there again within
half a minute. Each question is one small answer."""
UNKNOWN_SECONDS: Final = 5.0
GROUP_SECONDS: Final = 10.0
"""Rounds of a resync come in groups: waking up for each token by itself costs more than its round."""
TELL_OUTAGE_SECONDS: Final = 10.0
"""A restart of the server is shorter; a longer absence is told in every token."""
OUTAGE_SPREAD_SECONDS: Final = 30.0


class OwnedObjects(Pages, Protocol):
    """Calls of the tunnel server about everything that is ours."""

    async def facts(self) -> ServerFacts:
        """Ask the server about itself; also while the breaker is open."""
        ...

    async def list_tokens(self, owner_cluster: str) -> list[ListedToken]:
        """Return all tokens that are marked as ours."""
        ...

    async def delete_token(self, token_id: str) -> None:
        """Delete a token."""
        ...

    async def list_policies(self, owner_cluster: str) -> list[tuple[str, Owner]]:
        """Return ids and owners of all policies that are marked as ours."""
        ...

    async def delete_policy(self, policy_id: str) -> None:
        """Delete a policy."""
        ...


class Upkeep:
    """The loops; each runs until it is cancelled."""

    def __init__(
        self,
        *,
        kube: Kube,
        server: OwnedObjects,
        cache: Cache,
        queue: WorkQueue,
        controller: Controller,
        breaker: Breaker,
        instruments: Instruments,
        clock: Clock,
        owner_cluster: str,
        namespaces: tuple[str, ...],
        make_facts: Callable[[ServerFacts], ConnectionFacts],
    ) -> None:
        self._kube = kube
        self._server = server
        self._cache = cache
        self._queue = queue
        self._controller = controller
        self._breaker = breaker
        self._instruments = instruments
        self._clock = clock
        self._owner_cluster = owner_cluster
        self._namespaces = namespaces
        self._make_facts = make_facts
        self._suspects: set[str] = set()
        """Ids without a resource at the last sweep."""
        self.facts: ConnectionFacts | None = None

    async def learn_facts(self) -> bool:
        """Ask the server where it is; returns whether it answered."""
        try:
            facts = self._make_facts(await self._server.facts())
        except OperatorError as error:
            logger.info("the server says nothing", extra={"error": str(error)})
            return False
        known, self.facts = self.facts, facts
        if known != facts:
            # What Secrets say has to change; at the start everything waits for its first round anyway.
            self._controller.everything_again(spread_seconds=0.0 if known is None else 10.0)
        return True

    async def keep_facts(self) -> None:
        """Ask again now and then; often until the first answer."""
        while True:
            await asyncio.sleep(FACTS_SECONDS if self.facts else UNKNOWN_SECONDS)
            await self.learn_facts()

    async def probe(self) -> None:
        """Ask a server that is down whether it is back; tell every token if that takes long."""
        while True:
            await self._breaker.wait_open()
            logger.warning("the server is down", extra={"error": self._breaker.reason})
            is_told = False
            while self._breaker.is_open:
                await asyncio.sleep(self._breaker.next_pause())
                if not is_told and self._breaker.open_seconds >= TELL_OUTAGE_SECONDS:
                    is_told = True
                    self._controller.everything_again(spread_seconds=OUTAGE_SPREAD_SECONDS)
                try:
                    await self._server.facts()
                except OperatorError as error:
                    logger.debug("probe failed", extra={"error": str(error)})

    async def resync(self, seconds: float) -> None:
        """Look at each resource once in a period, evenly; list everything and sweep between two."""
        while True:
            await self._walk(seconds)
            try:
                await self.load()
                await self.sweep()
            except OperatorError as error:
                logger.warning("resync failed", extra={"error": str(error)})

    async def _walk(self, seconds: float) -> None:
        """Give every resource one round, in even groups over a time."""
        keys = [key for kind in KINDS.values() for key in self._cache.keys(kind)]
        walk = Walk(self._server, self._owner_cluster, keys)
        began, step = self._clock.monotonic(), seconds / max(1, len(keys))
        group = min(GROUP_SECONDS, seconds / 20)
        sizes = Counter(int(number * step // group) for number in range(len(keys)))
        for number, size in sizes.items():
            if (wait := began + number * group - self._clock.monotonic()) > 0:
                await asyncio.sleep(wait)
            for key in await walk.group(size):
                self._queue.add(key)
        await asyncio.sleep(began + seconds - self._clock.monotonic())

    async def refresh_usage(self, seconds: float) -> None:
        """Give a round to tokens whose usage is not what their status says."""
        while True:
            await asyncio.sleep(seconds)
            if self._breaker.is_open:
                continue
            try:
                listed = await self._server.list_tokens(self._owner_cluster)
            except OperatorError as error:
                logger.info("usage not fetched", extra={"error": str(error)})
                continue
            for row in listed:
                self._note_usage(row.owner, row.usage)

    async def load(self) -> None:
        """List all resources into the cache; what is gone leaves it.

        Raises:
            OperatorError: the API server did not answer.
            NotFound: the kinds are not installed.
        """
        kinds = [TOKENS, POLICIES] if self._namespaces else [TOKENS, POLICIES, CLUSTER_POLICIES]
        if not self._namespaces:
            namespaces, _ = await self._kube.list("/api/v1/namespaces")
            for body in namespaces:
                meta = body["metadata"]
                self._cache.set_namespace(meta["name"], meta.get("labels") or {})
        for kind in kinds:
            bodies, version = [], ""
            for namespace in self._namespaces or ("",):
                found, listed_at = await self._kube.list(collection(kind, namespace))
                bodies += found
                version = version or listed_at  # the first of several lists is the oldest
            for key in self._cache.replace_all(kind, bodies, version):
                self._controller.removed(kind, key.namespace, key.name)

    async def sweep(self) -> None:
        """Delete what is ours at the server and has no resource any more.

        Raises:
            OperatorError: one of the two did not answer.
        """
        suspects = set()
        for row in await self._server.list_tokens(self._owner_cluster):
            if row.label.startswith(RETAINED):
                continue
            if await self._is_orphan(TOKENS, row.owner):
                suspects.add(row.id)
                if row.id in self._suspects:
                    logger.warning("orphan revoked", extra={"id": row.id, "label": row.label})
                    await self._server.delete_token(row.id)
                    self._instruments.revoked(is_done=True)
                    suspects.discard(row.id)
        self._instruments.orphans.labels("token").set(len(suspects))
        orphans = len(suspects)
        for policy_id, owner in await self._server.list_policies(self._owner_cluster):
            kind = POLICIES if owner.namespace else CLUSTER_POLICIES
            if await self._is_orphan(kind, owner):
                suspects.add(policy_id)
                if policy_id in self._suspects:
                    logger.warning("orphan policy deleted", extra={"id": policy_id})
                    await self._server.delete_policy(policy_id)
                    suspects.discard(policy_id)
        self._suspects = suspects
        self._instruments.orphans.labels("policy").set(len(suspects) - orphans)

    async def _is_orphan(self, kind: Kind, owner: Owner) -> bool:
        if owner.cluster != self._owner_cluster:
            return False
        if self._namespaces and owner.namespace not in self._namespaces:
            return False
        body = self._cache.get(Key(kind.plural, owner.namespace, owner.name))
        if body is not None and body["metadata"]["uid"] == owner.uid:
            return False
        try:
            found = await self._kube.get(item(kind, owner.namespace, owner.name))
        except NotFound:
            return True
        return bool(found["metadata"]["uid"] != owner.uid)

    def _note_usage(self, owner: Owner, usage: Usage) -> None:
        key = Key(TOKENS.plural, owner.namespace, owner.name)
        body = self._cache.get(key)
        if body is None:
            return
        told = (body.get("status") or {}).get("usage") or {}
        counts = (told.get("activeTunnels", 0), told.get("activeAgents", 0))
        if counts != (usage.tunnels, usage.agents):
            self._queue.add(key)
