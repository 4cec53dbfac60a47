"""Settings shown to people."""

import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.config.load import load, resolve
from moleport_server.config.render import render_effective, render_value
from moleport_server.config.values import CertificateFiles, Endpoint, PortRange

ENVIRON = {"MOLEPORT__AUTH__ADMIN_TOKEN": "hunter2", "MOLEPORT__LISTEN__CONTROL_TLS": "false"}


def no_files(path: Path) -> str:
    raise FileNotFoundError(2, str(path))


def test_what_is_printed_can_be_used_as_a_settings_file() -> None:
    flags = {
        "server.domains": "a.example,b.example",
        "proxy.trusted": "10.0.0.0/8",
        "tls.certificates": "c.pem:k.pem",
        "listen.api": "off",
        "public.http_port": "80",
    }
    resolved = resolve(flags, ENVIRON, no_files)

    printed = render_effective(resolved)

    again = load({}, ENVIRON, lambda _path: printed, config_file=Path("x.toml"))
    assert again == resolved.settings


def test_a_secret_is_masked_and_every_source_is_named() -> None:
    printed = render_effective(resolve({"log.level": "debug"}, ENVIRON, no_files))

    assert "hunter2" not in printed
    assert (
        '# admin_token = "***"  # from environment variable MOLEPORT__AUTH__ADMIN_TOKEN' in printed
    )
    assert 'level = "debug"  # from flag --set log.level' in printed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "off"),
        (True, True),
        (5, 5),
        (0.5, 0.5),
        (Endpoint("::1", 5), "[::1]:5"),
        (PortRange(1, 2), "1-2"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (("a", "b"), ["a", "b"]),
        (
            (CertificateFiles(certificate_file=Path("c"), key_file=Path("k")),),
            [{"certificate_file": "c", "key_file": "k"}],
        ),
    ],
    ids=str,
)
def test_values_become_toml(value: Any, expected: Any) -> None:
    assert tomllib.loads(f"x = {render_value(value)}") == {"x": expected}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives(text: Any) -> None:
    assert tomllib.loads(f"x = {render_value(text)}") == {"x": text}


def test_a_foreign_type_is_a_bug() -> None:
    with pytest.raises(TypeError, match="object"):
        render_value(object())
