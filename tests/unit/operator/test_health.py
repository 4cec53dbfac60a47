import socket

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from moleport_operator.errors import ConfigError
from moleport_operator.health import serve_health


@pytest.mark.parametrize(
    ("path", "is_ready", "status", "text"),
    [
        ("/livez", False, 200, "ok"),
        ("/readyz", True, 200, "said"),
        ("/readyz", False, 503, "said"),
        ("/metrics", False, 200, "rounds_total 1.0"),
    ],
)
async def test_probes_and_metrics_are_answered(
    path: str, is_ready: bool, status: int, text: str
) -> None:
    registry = CollectorRegistry()
    Counter("rounds", "Rounds.", registry=registry).inc()
    async with (
        serve_health(
            "127.0.0.1",
            0,
            registry=registry,
            readiness=lambda: (is_ready, "said"),
            silence=lambda: None,
        ) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        body = await answer.text()

    assert answer.status == status
    assert text in body


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            async with serve_health(
                "127.0.0.1",
                port,
                registry=CollectorRegistry(),
                readiness=lambda: (True, ""),
                silence=lambda: None,
            ):
                raise AssertionError


async def test_a_watch_that_hangs_fails_liveness_with_its_sentence() -> None:
    async with (
        serve_health(
            "127.0.0.1",
            0,
            registry=CollectorRegistry(),
            readiness=lambda: (True, ""),
            silence=lambda: "the watch of x is silent",
        ) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/livez") as answer,
    ):
        body = await answer.text()

    assert (answer.status, body) == (503, "the watch of x is silent\n")
