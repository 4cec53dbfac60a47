"""Metrics of the operator, under the names that dashboards for controllers already know.

`controller_runtime_*`, `workqueue_*`, `rest_client_*` and `leader_election_*` mean what they mean for
operators in Go; what is about tunnels has the prefix `moleport_operator_`. Here is what is counted where it
happens; `collectors.py` has what is read at scrape time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from moleport_operator.queue import WorkQueue

QUEUE: Final = "moleport"
SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


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
    api_requests: Counter
    api_seconds: Histogram
    server_requests: Counter
    server_seconds: Histogram
    issuances: Counter
    rotations: Counter
    revocations: Counter
    orphans: Gauge
    writes: Gauge
    is_leader: Gauge

    def api_call(self, status: str, method: str, host: str, seconds: float) -> None:
        """Count a call of the API server, also one of kopf's; from any thread."""
        self.api_requests.labels(status, method, host).inc()
        self.api_seconds.labels(method, host).observe(seconds)

    def server_call(self, operation: str, status: str, seconds: float) -> None:
        """Count a call of the tunnel server."""
        self.server_requests.labels(operation, status).inc()
        self.server_seconds.labels(operation).observe(seconds)

    def issued(self, reason: str) -> None:
        """Implement `Tally`."""
        self.issuances.labels(reason).inc()

    def rotated(self, *, is_done: bool) -> None:
        """Implement `Tally`."""
        self.rotations.labels(_result(is_done=is_done)).inc()

    def revoked(self, *, is_done: bool) -> None:
        """Implement `Tally`."""
        self.revocations.labels(_result(is_done=is_done)).inc()

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
            api_requests=Counter(
                "rest_client_requests",
                "Calls of the API server.",
                ["code", "method", "host"],
                registry=registry,
            ),
            api_seconds=Histogram(
                "rest_client_request_duration_seconds",
                "Time of calls of the API server; of a watch until it begins.",
                ["verb", "host"],
                buckets=SECONDS,
                registry=registry,
            ),
            server_requests=Counter(
                "moleport_operator_server_requests",
                "Calls of the tunnel server, by operation and status.",
                ["operation", "code"],
                registry=registry,
            ),
            server_seconds=Histogram(
                "moleport_operator_server_request_duration_seconds",
                "Time of calls of the tunnel server.",
                ["operation"],
                buckets=SECONDS,
                registry=registry,
            ),
            issuances=Counter(
                "moleport_operator_issuances",
                "Credentials made, by why.",
                ["reason"],
                registry=registry,
            ),
            rotations=Counter(
                "moleport_operator_rotations",
                "Credentials that were to replace another one, by result.",
                ["result"],
                registry=registry,
            ),
            revocations=Counter(
                "moleport_operator_revocations",
                "Tokens that were to be revoked at the server, by result.",
                ["result"],
                registry=registry,
            ),
            orphans=Gauge(
                "moleport_operator_orphans",
                "What is ours at the server and has no resource, by kind.",
                ["kind"],
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


def _result(*, is_done: bool) -> str:
    return "success" if is_done else "failure"


def watch_queue(queue: WorkQueue, instruments: Instruments) -> None:
    """Let a queue tell how long its keys wait and are worked on."""
    queue.observe_wait = instruments.queue_seconds.labels(QUEUE).observe
    queue.observe_work = instruments.work_seconds.labels(QUEUE).observe
