"""What follows from single settings."""

import dataclasses
from pathlib import Path

import pytest

from moleport_server.config.settings import (
    CoreSettings,
    ListenSettings,
    PublicSettings,
    ServerSettings,
    TlsSettings,
)


def test_control_lives_under_the_first_domain_unless_named() -> None:
    core = CoreSettings(domains=("t.example", "u.example"))

    assert ServerSettings(server=core).control_host == "control.t.example"
    named = dataclasses.replace(core, control_host="agents.example")
    assert ServerSettings(server=named).control_host == "agents.example"


def test_public_urls_are_https_exactly_when_the_https_edge_is_on() -> None:
    assert ServerSettings().public_scheme == "https"
    without = ServerSettings(listen=ListenSettings(edge_https=None))
    assert without.public_scheme == "http"
    behind = dataclasses.replace(without, public=PublicSettings(scheme="https"))
    assert behind.public_scheme == "https"


def test_tcp_tunnels_are_reached_under_the_first_domain_unless_named() -> None:
    assert ServerSettings().public_tcp_host == "localhost"
    named = ServerSettings(public=PublicSettings(tcp_host="tcp.example"))
    assert named.public_tcp_host == "tcp.example"


@pytest.mark.parametrize(
    "settings",
    [TlsSettings(certificate_file=Path("x")), TlsSettings(authority_dir=Path("x"))],
    ids=["certificate", "authority"],
)
def test_tls_is_configured_by_a_certificate_or_an_authority(settings: TlsSettings) -> None:
    assert not TlsSettings().is_configured
    assert settings.is_configured


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerSettings().listen.api_tls = True  # type: ignore[misc]  # that is the point
