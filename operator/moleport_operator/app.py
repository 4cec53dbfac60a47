"""Composition root of the operator: builds the parts, runs them, takes them down in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.clock import Clock, SystemClock
from moleport_operator.collectors import ObjectCollector, QueueCollector, StateCollector
from moleport_operator.controller import Controller
from moleport_operator.errors import ConfigError, Denied, OperatorError
from moleport_operator.events import EventRecorder
from moleport_operator.health import serve_health
from moleport_operator.informer import run_informer
from moleport_operator.kube import Kube, NotFound, open_kube
from moleport_operator.kube_cluster import KubeCluster
from moleport_operator.lease import hold_lease
from moleport_operator.metrics import Instruments, watch_queue
from moleport_operator.plan.records import ConnectionFacts
from moleport_operator.policy_reconciler import PolicyReconciler
from moleport_operator.queue import WorkQueue
from moleport_operator.resources import CLUSTER_POLICIES, POLICIES, TOKENS, Kind
from moleport_operator.server import Server, open_server
from moleport_operator.server_bodies import ServerFacts
from moleport_operator.settings import OperatorSettings
from moleport_operator.token_reconciler import TokenReconciler
from moleport_operator.upkeep import Upkeep
from moleport_operator.watch_life import WatchLife

logger = logging.getLogger(__name__)

HTTPS_PORT: Final = 443
LEADER: Final = "moleport-operator"
"""The name in `leader_election_master_status`."""


class Stopped(Exception):
    """Somebody asked us to end."""


async def run(settings: OperatorSettings) -> None:
    """Run the operator until a signal ends it.

    Raises:
        OperatorError: it cannot start, or cannot go on.
    """
    clock, registry = SystemClock(), CollectorRegistry()
    instruments = Instruments.make(registry)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    instruments.is_leader.labels(LEADER).set(0)
    cache = Cache()
    queue = WorkQueue(clock, random.random)
    watch_queue(queue, instruments)
    breaker = Breaker(clock)
    readiness = Readiness(breaker, settings)
    life = WatchLife(clock)
    registry.register(QueueCollector(queue, settings.workers))
    registry.register(StateCollector(breaker, life, lambda: readiness.is_synced))
    registry.register(ObjectCollector(cache, clock, settings.object_metrics))

    async with AsyncExitStack() as stack:
        stop = _signals(stack)
        port = await stack.enter_async_context(
            serve_health(
                settings.health_host,
                settings.health_port,
                registry=registry,
                readiness=readiness.tell,
                silence=life.silent,
            )
        )
        logger.info("health listener open", extra={"port": port})
        kube = await stack.enter_async_context(open_kube(clock, instruments.api_call))
        server = await stack.enter_async_context(
            open_server(settings.server, breaker, instruments.server_call)
        )
        work = _Work(
            settings, kube, server, cache, queue, breaker, instruments, clock, readiness, life
        )
        async with hold_lease(settings.lease, kube, clock, settings.identity, stop) as lease:
            readiness.stands_by = False
            if not stop.is_set():
                instruments.is_leader.labels(LEADER).set(1)
                await _until_stopped(stop, lease, work)
        logger.info("operator stopped")


class Readiness:
    """What `/readyz` says."""

    def __init__(self, breaker: Breaker, settings: OperatorSettings) -> None:
        self._breaker = breaker
        self._is_namespaced = bool(settings.namespaces)
        self.is_synced = False
        self.stands_by = settings.lease is not None
        """Whether the Lease is still somebody else's."""

    def tell(self) -> tuple[bool, str]:
        """Return whether we are ready, and why or what of."""
        if self.stands_by:
            # Ready, or an update of two operators would wait for the second one for ever.
            return True, "ok; stands by: another operator holds the lease"
        if not self.is_synced:
            return False, "waits: not everything was listed yet"
        if self._breaker.is_open:
            return False, f"the tunnel server is down: {self._breaker.reason}"
        if self._is_namespaced:
            return True, "ok; ClusterTunnelPolicies are not watched with --namespace"
        return True, "ok"


class _Work:
    """What the holder of the lease does."""

    def __init__(
        self,
        settings: OperatorSettings,
        kube: Kube,
        server: Server,
        cache: Cache,
        queue: WorkQueue,
        breaker: Breaker,
        instruments: Instruments,
        clock: Clock,
        readiness: Readiness,
        life: WatchLife,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._server = server
        self._cache = cache
        self._queue = queue
        self._breaker = breaker
        self._instruments = instruments
        self._clock = clock
        self._readiness = readiness
        self._life = life

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            OperatorError: a condition of work is missing, or ended.
        """
        settings = self._settings
        owner = settings.owner_id or await cluster_id(self._kube)
        controller, upkeep = self._parts(owner)
        await _load(upkeep)
        self._readiness.is_synced = True
        logger.info("resources listed", extra={"tokens": len(self._cache.keys(TOKENS))})
        self._server.when_replaced = controller.server_was_replaced
        plurals = [TOKENS.plural, POLICIES.plural]
        if not settings.namespaces:
            plurals.append(CLUSTER_POLICIES.plural)
        async with (
            run_informer(
                tuple(plurals),
                namespaces=settings.namespaces,
                watches_namespaces=not settings.namespaces,
                heard=controller.heard,
                life=self._life,
                observe=self._instruments.api_call,
            ) as informer,
            asyncio.TaskGroup() as group,
        ):
            # Before any round, so that a restart does not tell every token that the server is away.
            if not await upkeep.learn_facts():
                controller.everything_again(spread_seconds=0.0)
            for number in range(settings.workers):
                group.create_task(controller.work(), name=f"worker-{number}")
            group.create_task(upkeep.keep_facts(), name="facts")
            group.create_task(upkeep.probe(), name="probe")
            group.create_task(upkeep.resync(settings.resync_seconds), name="resync")
            group.create_task(upkeep.refresh_usage(settings.usage_seconds), name="usage")
            await informer

    def _parts(self, owner: str) -> tuple[Controller, Upkeep]:
        def remember(kind: Kind, body: Mapping[str, Any]) -> None:
            controller.remember(kind, body)

        cluster = KubeCluster(self._kube, remember=remember)
        events = EventRecorder(self._kube, self._clock, identity=self._settings.identity)
        tokens = TokenReconciler(
            objects=cluster,
            secrets=cluster,
            events=events,
            server=self._server,
            clock=self._clock,
            random_bytes=secrets.token_bytes,
            owner_cluster=owner,
            tally=self._instruments,
        )
        policies = PolicyReconciler(
            objects=cluster,
            secrets=cluster,
            events=events,
            server=self._server,
            clock=self._clock,
            owner_cluster=owner,
        )
        controller = Controller(
            cache=self._cache,
            queue=self._queue,
            breaker=self._breaker,
            tokens=tokens,
            policies=policies,
            instruments=self._instruments,
            clock=self._clock,
            random=random.random,
            facts=lambda: upkeep.facts,
        )
        upkeep = Upkeep(
            kube=self._kube,
            server=self._server,
            cache=self._cache,
            queue=self._queue,
            controller=controller,
            breaker=self._breaker,
            instruments=self._instruments,
            clock=self._clock,
            owner_cluster=owner,
            namespaces=self._settings.namespaces,
            make_facts=partial(connection_facts, self._settings),
        )
        return controller, upkeep


def connection_facts(settings: OperatorSettings, facts: ServerFacts) -> ConnectionFacts:
    """Return what Secrets tell agents about the way to the server."""
    ca_pem = None
    if settings.agent_ca_file is not None:
        with suppress(OSError):
            ca_pem = settings.agent_ca_file.read_text(encoding="utf-8")
    port = facts.https_port or HTTPS_PORT
    domain = facts.domains[0] if facts.domains else "localhost"
    suffix = "" if port == HTTPS_PORT else f":{port}"
    return ConnectionFacts(
        agent_url=settings.agent_url or f"https://control.{domain}{suffix}",
        ca_pem=ca_pem,
        domains=facts.domains,
        public_https_port=port,
    )


async def cluster_id(kube: Kube) -> str:
    """Return what marks objects of this cluster at the server.

    Raises:
        ConfigError: we may not read it.
    """
    try:
        body = await kube.get("/api/v1/namespaces/kube-system")
    except (Denied, NotFound) as error:
        raise ConfigError(
            ["the namespace kube-system cannot be read: allow get on it, or set --owner-id"]
        ) from error
    uid: str = body["metadata"]["uid"]
    return uid


async def _load(upkeep: Upkeep) -> None:
    try:
        await upkeep.load()
    except NotFound as error:
        raise ConfigError(
            [
                f"the resources are not installed ({error}): moleport-operator crds | kubectl apply -f -"
            ]
        ) from error
    except Denied as error:
        raise ConfigError([f"the service account lacks a right: {error}"]) from error


async def _until_stopped(
    stop: asyncio.Event, lease: asyncio.Future[None] | None, work: _Work
) -> None:
    async def wait_for_stop() -> None:
        await stop.wait()
        raise Stopped

    async def wait_for_loss() -> None:
        if lease is not None:
            await lease

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_stop(), name="signals")
            group.create_task(wait_for_loss(), name="lease")
            group.create_task(work.run(), name="work")
    except* Stopped:
        logger.info("stopping")
    except* OperatorError as group_error:
        raise _first(group_error) from group_error


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _signals(stack: AsyncExitStack) -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
        stack.callback(loop.remove_signal_handler, number)
    return stop
