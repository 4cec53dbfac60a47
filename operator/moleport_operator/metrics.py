"""Metrics of the operator, under the names that dashboards for controllers already know.

`controller_runtime_*` and `workqueue_*` mean what they mean for operators in Go; what is about tunnels has
the prefix `moleport_operator_`. Values of objects are read at scrape time from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.plan.conditions import find_condition
from moleport_operator.quantities import parse_time
from moleport_operator.queue import WorkQueue
from moleport_operator.resources import CLUSTER_POLICIES, POLICIES, TOKENS

QUEUE: Final = "moleport"
SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
MOST_OBJECTS: Final = 10_000
"""Series per object stop above this number of tokens: the totals stay."""


@dataclass(frozen=True, slots=True)
class Instruments:
    """What is counted where it happens."""

    reconciles: Counter
    errors: Counter
    terminal_errors: Counter
    panics: Counter
    reconcile_seconds: Histogram
    queue_seconds: Histogram
    work_seconds: Histogram
    server_requests: Counter
    issuances: Counter
    revocations: Counter
    orphans: Gauge
    watch_events: Gauge
    writes: Gauge
    is_leader: Gauge

    @classmethod
    def make(cls, registry: CollectorRegistry) -> Instruments:
        """Register everything."""
        label = ["controller"]
        return cls(
            reconciles=Counter(
                "controller_runtime_reconcile",
                "Rounds, by how they ended.",
                [*label, "result"],
                registry=registry,
            ),
            errors=Counter(
                "controller_runtime_reconcile_errors",
                "Rounds that failed and are tried again.",
                label,
                registry=registry,
            ),
            terminal_errors=Counter(
                "controller_runtime_terminal_reconcile_errors",
                "Rounds that failed for good: the resource has to change.",
                label,
                registry=registry,
            ),
            panics=Counter(
                "controller_runtime_reconcile_panics",
                "Rounds that met a bug of the operator.",
                label,
                registry=registry,
            ),
            reconcile_seconds=Histogram(
                "controller_runtime_reconcile_time_seconds",
                "Time of a round.",
                label,
                buckets=SECONDS,
                registry=registry,
            ),
            queue_seconds=Histogram(
                "workqueue_queue_duration_seconds",
                "Time that keys waited for a worker.",
                ["name"],
                buckets=SECONDS,
                registry=registry,
            ),
            work_seconds=Histogram(
                "workqueue_work_duration_seconds",
                "Time that workers had keys.",
                ["name"],
                buckets=SECONDS,
                registry=registry,
            ),
            server_requests=Counter(
                "moleport_operator_server_requests",
                "Calls of the tunnel server, by operation and status.",
                ["operation", "code"],
                registry=registry,
            ),
            issuances=Counter(
                "moleport_operator_issuances",
                "Credentials made, by why.",
                ["reason"],
                registry=registry,
            ),
            revocations=Counter(
                "moleport_operator_revocations", "Tokens revoked at the server.", registry=registry
            ),
            orphans=Gauge(
                "moleport_operator_orphans",
                "Tokens at the server that are ours and have no resource.",
                registry=registry,
            ),
            watch_events=Gauge(
                "moleport_operator_watch_last_event_timestamp_seconds",
                "When the watch last told anything.",
                ["resource"],
                registry=registry,
            ),
            writes=Gauge(
                "moleport_operator_last_write_timestamp_seconds",
                "When the operator last changed a resource, which the watch tells soon after.",
                ["resource"],
                registry=registry,
            ),
            is_leader=Gauge(
                "leader_election_master_status",
                "Whether this operator is the one that works.",
                ["name"],
                registry=registry,
            ),
        )


class QueueCollector(Collector):
    """The work queue, under client-go's names."""

    def __init__(self, queue: WorkQueue, workers: int) -> None:
        self._queue = queue
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield what the queue holds now."""
        queue, working = self._queue, self._queue.working_seconds()
        for name, text, value in (
            ("workqueue_depth", "Keys that wait for a worker.", queue.depth),
            ("workqueue_adds_total", "Keys added.", queue.counts.adds),
            ("workqueue_retries_total", "Keys added again after a failure.", queue.counts.retries),
            ("workqueue_unfinished_work_seconds", "Time of all rounds at work.", sum(working)),
            (
                "workqueue_longest_running_processor_seconds",
                "Time of the longest round at work.",
                max(working, default=0.0),
            ),
        ):
            yield _gauge(name, text, ["name"], [((QUEUE,), value)])
        for name, text, value in (
            ("controller_runtime_active_workers", "Rounds at work.", len(working)),
            (
                "controller_runtime_max_concurrent_reconciles",
                "Rounds that may be at work.",
                self._workers,
            ),
        ):
            yield _gauge(name, text, ["controller"], [((QUEUE,), value)])


class ObjectCollector(Collector):
    """Tokens and policies, from the cache."""

    def __init__(self, cache: Cache, breaker: Breaker, is_synced: Callable[[], bool]) -> None:
        self._cache = cache
        self._breaker = breaker
        self._is_synced = is_synced

    def collect(self) -> Iterator[Metric]:
        """Yield what the cache holds now."""
        yield _gauge(
            "moleport_operator_server_up",
            "Whether the tunnel server answers.",
            [],
            [((), not self._breaker.is_open)],
        )
        yield _gauge(
            "moleport_operator_initial_sync_complete",
            "Whether everything was listed once.",
            [],
            [((), self._is_synced())],
        )
        yield _gauge(
            "moleport_operator_resources",
            "Resources, by kind.",
            ["kind"],
            [
                ((kind.name,), len(self._cache.keys(kind)))
                for kind in (TOKENS, POLICIES, CLUSTER_POLICIES)
            ],
        )
        if len(self._cache.keys(TOKENS)) <= MOST_OBJECTS:
            yield from self._tokens()

    def _tokens(self) -> Iterator[Metric]:
        labels = ["namespace", "name"]
        ready: list[tuple[tuple[str, ...], float]] = []
        suspended: list[tuple[tuple[str, ...], float]] = []
        deleted: list[tuple[tuple[str, ...], float]] = []
        times: dict[str, list[tuple[tuple[str, ...], float]]] = {
            "expirationTime": [],
            "renewalTime": [],
        }
        for body in self._cache.bodies(TOKENS):
            meta, status = body["metadata"], body.get("status") or {}
            name = (meta.get("namespace", ""), meta["name"])
            ready.append((name, find_condition(status, "Ready").get("status") == "True"))
            if (body.get("spec") or {}).get("suspend"):
                suspended.append((name, 1))
            if meta.get("deletionTimestamp"):
                deleted.append((name, parse_time(meta["deletionTimestamp"])))
            for field, rows in times.items():
                if status.get(field):
                    rows.append((name, parse_time(status[field])))
        yield _gauge("moleport_operator_token_ready", "Whether a token is ready.", labels, ready)
        yield _gauge(
            "moleport_operator_token_suspended", "Tokens that are suspended.", labels, suspended
        )
        yield _gauge(
            "moleport_operator_token_deletion_timestamp_seconds",
            "Since when a token waits to be revoked.",
            labels,
            deleted,
        )
        yield _gauge(
            "moleport_operator_token_expiration_timestamp_seconds",
            "When the credential of a token ends.",
            labels,
            times["expirationTime"],
        )
        yield _gauge(
            "moleport_operator_token_renewal_timestamp_seconds",
            "When the credential of a token is renewed.",
            labels,
            times["renewalTime"],
        )


def _gauge(
    name: str, text: str, labels: list[str], rows: list[tuple[tuple[str, ...], Any]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), float(value))
    return family


def watch_queue(queue: WorkQueue, instruments: Instruments) -> None:
    """Let a queue tell how long its keys wait and are worked on."""
    queue.observe_wait = instruments.queue_seconds.labels(QUEUE).observe
    queue.observe_work = instruments.work_seconds.labels(QUEUE).observe
