"""The parts of the data plane that decide something; the whole runs in tests of processes."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from helpers.clock import FakeClock
from moleport_server.app.data_plane import preamble_of, rate_limiter
from moleport_server.config.settings import CoreSettings, ServerSettings

DEFAULT = ServerSettings(server=CoreSettings(domains=("tunnels.test",)))


@pytest.mark.parametrize(("rate", "is_limited"), [(0.0, False), (2.0, True)])
def test_a_rate_of_zero_is_no_limit(rate: float, is_limited: bool) -> None:
    assert (rate_limiter(rate, FakeClock()) is not None) is is_limited


def test_only_listeners_that_expect_a_preamble_read_one() -> None:
    proxy = replace(
        DEFAULT.proxy, proxy_protocol=("control",), trusted=(ip_network("192.0.2.0/24"),)
    )
    settings = replace(DEFAULT, proxy=proxy)

    preamble = preamble_of(settings, "control")

    assert preamble is not None
    assert preamble.is_expected_from("192.0.2.1")
    assert not preamble.is_expected_from("198.51.100.1")
    assert preamble_of(settings, "edge_http") is None
