"""What components are told of the settings."""

from dataclasses import replace

import pytest

from moleport_server.app.sections import (
    edge_settings,
    hoody_settings,
    public_addresses,
    registry_settings,
    rustunnel_settings,
    server_facts,
)
from moleport_server.config.settings import (
    CoreSettings,
    ListenSettings,
    PublicSettings,
    ServerSettings,
)

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
    assert public_addresses(settings).http_url("a.tunnels.test") == url


def test_tcp_tunnels_are_under_the_first_domain_or_the_public_host() -> None:
    public = replace(DEFAULT, public=PublicSettings(tcp_host="tcp.test"))

    assert public_addresses(DEFAULT).tcp_url(1) == "tcp://tunnels.test:1"
    assert public_addresses(public).tcp_url(1) == "tcp://tcp.test:1"


def test_nobody_is_given_the_name_that_agents_connect_to() -> None:
    assert DEFAULT.control_host in registry_settings(DEFAULT).reserved_names


def test_container_ports_keep_out_of_the_ports_that_the_server_itself_has() -> None:
    ports = DEFAULT.listen.tcp_ports

    reserved = registry_settings(DEFAULT).container_ports.reserved

    assert (ports.first, ports.last) in reserved
    assert {(4040, 4040), (8080, 8080), (8443, 8443), (9090, 9090)} <= set(reserved)


def test_limits_reach_the_component_that_keeps_to_them() -> None:
    settings = replace(
        DEFAULT,
        limits=replace(DEFAULT.limits, streams_per_session=7, request_body_bytes=9, sessions=5),
    )

    assert hoody_settings(settings, "9.9").max_streams == 7
    assert edge_settings(settings).body_bytes == 9
    assert registry_settings(settings).max_sessions == 5


def test_each_family_is_told_the_version_in_its_own_words() -> None:
    assert hoody_settings(DEFAULT, "9.9").server_name == "moleport 9.9"
    assert rustunnel_settings(DEFAULT, "9.9").server_name == "moleport.9.9"


def test_the_api_tells_the_ports_that_people_use_and_null_for_what_is_unlimited() -> None:
    settings = replace(
        DEFAULT,
        public=PublicSettings(https_port=443, control_url="https://tunnels.test:7443"),
        limits=replace(DEFAULT.limits, request_body_bytes=0),
    )

    facts = server_facts(settings, "9.9", "instance")

    assert (facts.http_port, facts.https_port, facts.control_port) == (8080, 443, 7443)
    assert facts.region.host == "tunnels.test"
    assert facts.limits["request_body_bytes"] is None
