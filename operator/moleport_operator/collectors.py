"""Metrics that are read at scrape time: the queue, the state of the operator, tokens and policies.

A series per token is what alerts want and what thousands of tokens make expensive, for Prometheus and for
us. So above a number of tokens only those have series that need attention: not ready, overdue, or being
deleted; the totals by reason stay complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moleport_operator.breaker import Breaker
from moleport_operator.cache import Body, Cache
from moleport_operator.clock import Clock
from moleport_operator.metrics import QUEUE
from moleport_operator.plan.conditions import find_condition
from moleport_operator.quantities import parse_time
from moleport_operator.queue import WorkQueue
from moleport_operator.resources import CLUSTER_POLICIES, POLICIES, TOKENS
from moleport_operator.watch_life import WatchLife

_Rows = list[tuple[tuple[str, ...], float]]


class QueueCollector(Collector):
    """The work queue, under client-go's names."""

    def __init__(self, queue: WorkQueue, workers: int) -> None:
        self._queue = queue
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield what the queue holds now."""
        queue, working = self._queue, self._queue.working_seconds()
        for name, text, count in (
            ("workqueue_adds", "Keys added.", queue.counts.adds),
            ("workqueue_retries", "Keys added again after a failure.", queue.counts.retries),
        ):
            counter = CounterMetricFamily(name, text, labels=["name"])
            counter.add_metric([QUEUE], float(count))
            yield counter
        for name, text, value in (
            ("workqueue_depth", "Keys that wait for a worker.", queue.depth),
            ("workqueue_unfinished_work_seconds", "Time of all rounds at work.", sum(working)),
            (
                "workqueue_longest_running_processor_seconds",
                "Time of the longest round at work.",
                max(working, default=0.0),
            ),
        ):
            yield _gauge(name, text, ["name"], [((QUEUE,), float(value))])
        for name, text, value in (
            ("controller_runtime_active_workers", "Rounds at work.", len(working)),
            (
                "controller_runtime_max_concurrent_reconciles",
                "Rounds that may be at work.",
                self._workers,
            ),
        ):
            yield _gauge(name, text, ["controller"], [((QUEUE,), float(value))])


class StateCollector(Collector):
    """Both servers, as the operator sees them."""

    def __init__(self, breaker: Breaker, life: WatchLife, is_synced: Callable[[], bool]) -> None:
        self._breaker = breaker
        self._life = life
        self._is_synced = is_synced

    def collect(self) -> Iterator[Metric]:
        """Yield what is known now."""
        yield _gauge(
            "moleport_operator_server_up",
            "Whether the tunnel server answers.",
            [],
            [((), float(not self._breaker.is_open))],
        )
        yield _gauge(
            "moleport_operator_initial_sync_complete",
            "Whether everything was listed once.",
            [],
            [((), float(self._is_synced()))],
        )
        yield _gauge(
            "moleport_operator_watch_last_event_timestamp_seconds",
            "When something came last on a watch or list, also a bookmark.",
            ["resource"],
            [((plural,), at) for plural, at in self._life.last_heard().items()],
        )


class ObjectCollector(Collector):
    """Tokens and policies, from the cache."""

    def __init__(self, cache: Cache, clock: Clock, most_series: int) -> None:
        """Make a collector.

        Args:
            cache: what the cluster holds.
            clock: tells what is overdue.
            most_series: up to so many tokens each has series of its own.
        """
        self._cache = cache
        self._clock = clock
        self._most_series = most_series

    def collect(self) -> Iterator[Metric]:
        """Yield what the cache holds now."""
        yield _gauge(
            "moleport_operator_resources",
            "Resources, by kind.",
            ["kind"],
            [
                ((kind.name,), float(len(self._cache.keys(kind))))
                for kind in (TOKENS, POLICIES, CLUSTER_POLICIES)
            ],
        )
        yield from self._tokens()
        policies = (
            (kind.name, body)
            for kind in (POLICIES, CLUSTER_POLICIES)
            for body in self._cache.bodies(kind)
        )
        attached: _Rows = []
        for kind, body in policies:
            status = body.get("status") or {}
            if len(attached) < self._most_series and "attachedTokens" in status:
                attached.append(((kind, *_name(body)), float(status["attachedTokens"])))
        yield _gauge(
            "moleport_operator_policy_attached_tokens",
            "Tokens that a policy attaches to.",
            ["kind", "namespace", "name"],
            attached,
        )

    def _tokens(self) -> Iterator[Metric]:
        ready: _Rows = []
        suspended: _Rows = []
        times: dict[str, _Rows] = {"expirationTime": [], "renewalTime": [], "deletionTimestamp": []}
        for body in self._shown():
            meta, status = body["metadata"], body.get("status") or {}
            name = _name(body)
            ready.append((name, float(find_condition(status, "Ready").get("status") == "True")))
            if (body.get("spec") or {}).get("suspend"):
                suspended.append((name, 1.0))
            for field, rows in times.items():
                if at := status.get(field) or meta.get(field):
                    rows.append((name, float(parse_time(at))))
        reasons = self._cache.tallies.reasons()
        yield _gauge(
            "moleport_operator_tokens",
            "TunnelTokens, by the reason of their readiness.",
            ["reason"],
            [((reason,), float(count)) for reason, count in sorted(reasons.items())],
        )
        labels = ["namespace", "name"]
        yield _gauge(
            "moleport_operator_token_suspended", "Tokens that are suspended.", labels, suspended
        )
        yield _gauge("moleport_operator_token_ready", "Whether a token is ready.", labels, ready)
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
        yield _gauge(
            "moleport_operator_token_deletion_timestamp_seconds",
            "When the deletion of a token began that is not over.",
            labels,
            times["deletionTimestamp"],
        )

    def _shown(self) -> Iterator[Body]:
        """Yield the tokens that have series of their own."""
        if len(self._cache.keys(TOKENS)) <= self._most_series:
            yield from self._cache.bodies(TOKENS)
            return
        needy = self._cache.tallies.needing_attention(self._clock.now())
        for key in needy[: self._most_series]:
            if (body := self._cache.get(key)) is not None:
                yield body


def _name(body: Body) -> tuple[str, str]:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _gauge(name: str, text: str, labels: list[str], rows: _Rows) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family
