"""The parts of the composition root that decide something; the whole runs in tests of processes."""

import asyncio
from dataclasses import replace

import pytest

from helpers.clock import FakeClock
from moleport_server import app
from moleport_server.config.settings import (
    CoreSettings,
    ListenSettings,
    PublicSettings,
    ServerSettings,
)
from moleport_server.errors import StoreFull

DEFAULT = ServerSettings(server=CoreSettings(domains=("tunnels.test",)))


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        pytest.param(DEFAULT, "https://a.tunnels.test:8443", id="bound port"),
        pytest.param(
            replace(DEFAULT, public=PublicSettings(https_port=443)),
            "https://a.tunnels.test",
            id="public port",
        ),
        pytest.param(
            replace(DEFAULT, listen=ListenSettings(edge_https=None)),
            "http://a.tunnels.test:8080",
            id="without https",
        ),
        pytest.param(
            replace(
                DEFAULT,
                listen=ListenSettings(edge_https=None),
                public=PublicSettings(scheme="https"),
            ),
            "https://a.tunnels.test",
            id="TLS ends before us",
        ),
    ],
)
def test_urls_are_those_that_visitors_use(settings: ServerSettings, url: str) -> None:
    assert app._addresses(settings).http_url("a.tunnels.test") == url


def test_tcp_tunnels_are_under_the_first_domain_or_the_public_host() -> None:
    public = replace(DEFAULT, public=PublicSettings(tcp_host="tcp.test"))

    assert app._addresses(DEFAULT).tcp_url(1) == "tcp://tunnels.test:1"
    assert app._addresses(public).tcp_url(1) == "tcp://tcp.test:1"


async def test_periodic_work_goes_on_after_the_store_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0
    is_enough = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            is_enough.set()
        raise StoreFull("disk full")

    task = asyncio.get_running_loop().create_task(app._every(0.001, work))
    async with asyncio.timeout(3):
        await is_enough.wait()
    task.cancel()

    assert "periodic work failed" in caplog.text


@pytest.mark.parametrize(("rate", "is_limited"), [(0.0, False), (2.0, True)])
def test_a_rate_of_zero_is_no_limit(rate: float, is_limited: bool) -> None:
    assert (app._rate_limiter(rate, FakeClock()) is not None) is is_limited


def test_failures_without_a_limit_are_never_slowed_down() -> None:
    limiter = app._failure_limiter(0, FakeClock())

    assert not any(limiter.take("192.0.2.1") for _ in range(10_000))
