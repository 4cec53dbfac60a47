"""The metrics of the server in one place, and what the components' observers count there."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry

from moleport_server.metrics.exposition import new_registry
from moleport_server.metrics.instruments import (
    AgentMetrics,
    ApiMetrics,
    EdgeMetrics,
    ProcessMetrics,
    RegistryMetrics,
)
from moleport_server.metrics.lifecycle import LifecycleCounts

if TYPE_CHECKING:
    from moleport_server.api.routing import Route  # read later, with the library of the REST API


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """Every group of instruments."""

    collectors: CollectorRegistry
    """What `/metrics` shows."""
    edge: EdgeMetrics
    agents: AgentMetrics
    api: ApiMetrics
    process: ProcessMetrics
    lifecycle: LifecycleCounts
    """Sessions, tunnels and leases, as the registry tells them."""

    @classmethod
    def create(cls, version: str) -> Self:
        """Register all of them."""
        collectors = new_registry()
        agents = AgentMetrics.create(collectors)
        return cls(
            collectors=collectors,
            edge=EdgeMetrics.create(collectors),
            agents=agents,
            api=ApiMetrics.create(collectors),
            process=ProcessMetrics.create(
                collectors, version=version, python=platform.python_version()
            ),
            lifecycle=LifecycleCounts(agents, RegistryMetrics.create(collectors)),
        )

    def count_call(self, route: Route, status: int, seconds: float) -> None:
        """Count a REST call."""
        self.api.requests.labels(route.path, route.method, str(status)).inc()
        # A stream of events lasts as long as somebody watches, which says nothing about the server.
        if not route.is_stream:
            self.api.duration.labels(route.path).observe(seconds)

    def count_login(self, kind: str, result: str) -> None:
        """Count a login of an agent or of an API caller."""
        self.agents.auth_attempts.labels(kind, result).inc()
        if result == "limited":
            self.edge.rate_limited.labels("login_failures").inc()

    def count_password(self, result: str) -> None:
        """Count a password of a visitor."""
        self.agents.auth_attempts.labels("visitor", result).inc()
