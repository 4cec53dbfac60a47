"""What becomes of the configuration of a rustunnel server."""

from pathlib import Path

import pytest

from moleport_server.config.load import load
from moleport_server.config.rustunnel import STEPS, Translation, render_translation, translate
from moleport_server.config.schema import keys
from moleport_server.config.values import Endpoint, PortRange
from moleport_server.errors import ConfigError

SAMPLE = """
[server]
domain = "tunnels.example.com"
http_port = 80
https_port = 443
control_port = 4040
dashboard_port = 4041
dashboard_origin = "https://ops.example.com"

[tls]
cert_path = "/etc/tunnels/cert.pem"
key_path = "/etc/tunnels/key.pem"
acme_enabled = true
acme_email = "ops@example.com"
cloudflare_api_token = "cf-secret"

[auth]
admin_token = "admin-secret"
require_auth = false

[database]
url = "postgresql://tunnel:db-secret@db/tunnel"
captured_path = "/var/lib/tunnels/captured.db"

[logging]
level = "info"
format = "json"
audit_log_path = "/var/log/tunnels/audit.log"

[limits]
max_tunnels_per_session = 10
max_connections_per_tunnel = 100
rate_limit_rps = 100
ip_rate_limit_rps = 50
request_body_max_bytes = 10485760
tcp_port_range = [20000, 20099]
udp_port_range = [0, 0]

[region]
id = "eu"
name = "Europe"
location = ""
"""


def test_a_whole_file_becomes_settings_that_this_server_takes() -> None:
    text = render_translation(translate(SAMPLE))

    files = {Path("moleport.toml"): text}
    for path in ("/etc/tunnels/cert.pem", "/etc/tunnels/key.pem"):
        files[Path(path)] = ""
    settings = load(
        {}, {"MOLEPORT__AUTH__ADMIN_TOKEN": "x" * 32}, files.__getitem__,
        config_file=Path("moleport.toml"),
    )  # fmt: skip
    assert settings.server.domains == ("tunnels.example.com",)
    assert settings.server.region == "eu"
    assert settings.listen.edge_http == Endpoint("0.0.0.0", 80)
    assert settings.listen.edge_http_mode == "redirect"
    assert settings.listen.edge_https == Endpoint("0.0.0.0", 443)
    assert settings.listen.control == Endpoint("0.0.0.0", 4040)
    assert settings.listen.api == Endpoint("0.0.0.0", 4041)
    assert settings.listen.tcp_ports == PortRange(20000, 20099)
    assert settings.tls.certificate_file == Path("/etc/tunnels/cert.pem")
    assert settings.api.cors_origins == ("https://ops.example.com",)
    assert (settings.log.level, settings.log.format) == ("info", "json")
    assert settings.log.audit_file == Path("/var/log/tunnels/audit.log")
    assert settings.limits.tunnels_per_session == 10
    assert settings.limits.connections_per_tunnel == 100
    assert settings.limits.requests_per_second == 100
    assert settings.limits.ip_requests_per_second == 50
    assert settings.limits.request_body_bytes == 10485760


def test_what_has_no_equivalent_is_named_and_no_secret_is_repeated() -> None:
    text = render_translation(translate(SAMPLE))

    remarks = [line for line in text.splitlines() if line.startswith("#   ")]
    assert [line.split(":")[0].strip("# ") for line in remarks] == [
        "tls.acme_enabled",
        "tls.cloudflare_api_token",
        "auth.admin_token",
        "auth.require_auth",
        "database.url",
        "database.captured_path",
        "region.name",
        "server.dashboard_port",
    ]
    assert "secret" not in text


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ('[logging]\nlevel = "trace"', "log.level", "debug"),
        ('[logging]\nlevel = "warn"', "log.level", "warning"),
        ('[logging]\nlevel = "rustunnel_server=debug,info"', "log.level", "info"),
        ('[logging]\nformat = "pretty"', "log.format", "text"),
        ('[server]\nplain_http_mode = "proxy"', "listen.edge_http_mode", "serve"),
        ("[auth]\nmax_failed_auth_per_minute = 5", "auth.failures_per_minute", 5),
        ("[limits]\nip_rate_limit_rps = 0", "limits.ip_requests_per_second", 0),
    ],
)
def test_a_value_in_other_words(line: str, path: str, value: object) -> None:
    assert translate(line).values[path] == value


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("[p2p]\nenabled = true", "p2p.enabled: tunnels between two clients are not forwarded"),
        ("[load_balancing]\nenabled = true", "several clients cannot share one name"),
        ("[limits]\nudp_port_range = [1, 2]", "limits.udp_port_range: UDP is not forwarded"),
        ("[server]\nfrobnicate = 1", "server.frobnicate: unknown"),
        ("colour = 1", "colour: not a section"),
    ],
)
def test_a_remark_says_what_is_not_there(line: str, remark: str) -> None:
    assert any(remark in one for one in translate(line).remarks)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server", "not TOML"),
        ('[server]\nhttp_port = "eighty"', "server.http_port: not a value"),
        ("[server]\nhttp_port = 70000", "server.http_port: "),
        ("[limits]\ntcp_port_range = 7", "limits.tcp_port_range: not a value"),
        ('[logging]\nlevel = "loud"', "logging.level: "),
        ('[limits]\nmax_tunnels_per_session = "ten"', "limits.max_tunnels_per_session: "),
    ],
)
def test_a_broken_file_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        translate(text)


def test_every_step_leads_to_a_setting_that_exists() -> None:
    made = {path for line in STEPS for path in translate_one(line).values}

    assert made <= set(keys())


def translate_one(key: str) -> Translation:
    section, name = key.split(".")
    for value in ('"info"', "1000", "[1, 2]", "true", '"redirect"', '"example.com"'):
        try:
            return translate(f"[{section}]\n{name} = {value}")
        except ConfigError:
            continue
    raise AssertionError(f"no value fits {key}")
