from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter

from moleport_server.health import make_health_app


class Server:
    """A health listener whose readiness a test sets."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.client: TestClient  # type: ignore[type-arg]  # generic for checkers only


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    registry = CollectorRegistry()
    Counter("moleport_test_visits", "Visits.", registry=registry).inc(3)
    server = Server()
    app = make_health_app(registry, lambda: server.reason)
    async with TestClient(TestServer(app)) as server.client:
        yield server


async def test_metrics_are_shown_as_prometheus_reads_them(server: Server) -> None:
    response = await server.client.get("/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "moleport_test_visits_total 3.0" in await response.text()


async def test_a_loop_that_answers_is_alive_even_when_it_drains(server: Server) -> None:
    server.reason = "draining"

    assert (await server.client.get("/livez")).status == 200


async def test_readiness_says_why_not(server: Server) -> None:
    assert (await server.client.get("/readyz")).status == 200
    server.reason = "draining"

    response = await server.client.get("/readyz")

    assert (response.status, await response.text()) == (503, "draining\n")
