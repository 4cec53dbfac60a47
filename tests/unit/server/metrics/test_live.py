from dataclasses import fields, replace

from prometheus_client import CollectorRegistry

from helpers.metrics import everything, quiet_readings
from moleport_server.metrics import live
from moleport_server.metrics.live import LiveNumbers, Readings


def test_each_reading_is_shown() -> None:
    tables = (
        live._SINGLE, live._BY_PROTOCOL, live._BY_NAME, live._COUNTS, live._COUNTS_BY_NAME,
    )  # fmt: skip
    shown = set().union(*tables)

    assert shown == {field.name for field in fields(Readings)}


def test_gauges_tell_the_moment_of_the_scrape() -> None:
    sessions = [1]
    readings = replace(
        quiet_readings(),
        agents_connected=lambda: len(sessions),
        tunnels_active=lambda: {"http": 3},
        certificate_expirations=lambda: {"tls.certificate_file": 1.9e9},
        draining=lambda: True,
    )
    registry = CollectorRegistry()
    registry.register(LiveNumbers(readings))
    sessions.append(2)

    assert registry.get_sample_value("moleport_server_agents_connected") == 2
    assert registry.get_sample_value("moleport_server_tunnels_active", {"protocol": "http"}) == 3
    assert registry.get_sample_value("moleport_server_tunnels_active", {"protocol": "tcp"}) == 0
    assert registry.get_sample_value("moleport_server_draining") == 1
    assert (
        registry.get_sample_value(
            "moleport_server_tls_certificate_expiration_timestamp_seconds",
            {"certificate": "tls.certificate_file"},
        )
        == 1.9e9
    )


def test_dashboards_of_rustunnel_find_their_names() -> None:
    readings = replace(
        quiet_readings(), agents_connected=lambda: 2, tunnels_active=lambda: {"http": 3, "tcp": 4}
    )
    registry = everything(readings).registry

    assert registry.get_sample_value("rustunnel_active_sessions") == 2
    assert registry.get_sample_value("rustunnel_active_tunnels_http") == 3
    assert registry.get_sample_value("rustunnel_active_tunnels_tcp") == 4
