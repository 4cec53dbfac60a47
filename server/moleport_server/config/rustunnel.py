"""Reads the configuration of a rustunnel server and says the same in settings of this one.

A table tells for each key of that file which setting it becomes, or why none. Whatever has no
equivalent is named in the result, so that nobody finds out by its absence. Secrets are never repeated:
the text goes to a terminal or into a file that others may read.

Pure: the text comes in, settings and remarks come out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moleport_server.config.render import render_setting
from moleport_server.config.schema import keys
from moleport_server.errors import ConfigError

_LEVELS: Final = {"trace": "debug", "warn": "warning"}


@dataclass(slots=True)
class Translation:
    """What became of a file."""

    values: dict[str, object] = field(default_factory=dict)
    """Settings by path, as this server reads them from TOML."""
    remarks: list[str] = field(default_factory=list)
    """What has no equivalent, or needs a hand; one sentence each, starting with the key."""
    problems: list[str] = field(default_factory=list)

    def put(self, path: str, value: object, key: str) -> None:
        """Set one setting; a value that it does not take is a problem of the file."""
        try:
            self.values[path] = keys()[path].parse(value, is_text=False)
        except ValueError as error:
            self.problems.append(f"{key}: {error}")


Step = Callable[[Translation, str, Any], None]
"""Takes a value of the file into the translation; gets the key as well."""


def _becomes(path: str, convert: Callable[[Any], object] = lambda value: value) -> Step:
    def step(result: Translation, key: str, value: Any) -> None:
        try:
            converted = convert(value)
        except (TypeError, ValueError, KeyError, AttributeError):
            result.problems.append(f"{key}: not a value that a rustunnel server takes")
        else:
            result.put(path, converted, key)

    return step


def _has_none(why: str) -> Step:
    def step(result: Translation, key: str, value: Any) -> None:
        if value not in (False, "", [0, 0], None):
            result.remarks.append(f"{key}: {why}")

    return step


def _port(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return f"0.0.0.0:{value}"


def _range(value: Any) -> str:
    first, last = value
    return f"{int(first)}-{int(last)}"


def _mode(value: str) -> str:
    return {"redirect": "redirect", "proxy": "serve"}[value]


def _level(value: str) -> str:
    # The file may hold a filter such as `rustunnel_server=debug,info`; its last word is the level.
    word = value.lower().rpartition(",")[2].rpartition("=")[2].strip()
    return _LEVELS.get(word, word)


def _require_auth(result: Translation, key: str, value: object) -> None:
    if value is not True:
        result.remarks.append(
            f"{key}: every client needs a token here; create one for those without"
        )


_NO_ACME: Final = _has_none(
    "certificates are not ordered by this server; let cert-manager or certbot write the files, which "
    "are read again when they change"
)
_NO_DATABASE: Final = _has_none(
    "state is in SQLite files under server.data_dir; tokens and history of the old database are not "
    "taken over, so create the tokens anew"
)
_NO_PEERS: Final = _has_none("tunnels between two clients are not forwarded")
_NO_GROUPS: Final = _has_none("several clients cannot share one name")

STEPS: Final[Mapping[str, Step]] = {
    "server.domain": _becomes("server.domains", lambda value: [value]),
    "server.http_port": _becomes("listen.edge_http", _port),
    "server.https_port": _becomes("listen.edge_https", _port),
    "server.control_port": _becomes("listen.control", _port),
    "server.dashboard_port": _becomes("listen.api", _port),
    "server.dashboard_origin": _becomes("api.cors_origins", lambda value: [value]),
    "server.plain_http_mode": _becomes("listen.edge_http_mode", _mode),
    "tls.cert_path": _becomes("tls.certificate_file"),
    "tls.key_path": _becomes("tls.key_file"),
    "tls.acme_enabled": _NO_ACME,
    "tls.cloudflare_api_token": _NO_ACME,
    "auth.admin_token": _has_none(
        "not repeated here; write it to a file and set auth.admin_token_file"
    ),
    "auth.require_auth": _require_auth,
    "auth.max_failed_auth_per_minute": _becomes("auth.failures_per_minute"),
    "database.url": _NO_DATABASE,
    "database.captured_path": _has_none(
        "captured requests are in captures.db under server.data_dir"
    ),
    "logging.level": _becomes("log.level", _level),
    "logging.format": _becomes(
        "log.format", lambda value: "json" if value.lower() == "json" else "text"
    ),
    "logging.audit_log_path": _becomes("log.audit_file"),
    "logging.sentry_dsn": _has_none("errors are not sent anywhere; collect them from the log"),
    "limits.max_tunnels_per_session": _becomes("limits.tunnels_per_session"),
    "limits.max_connections_per_tunnel": _becomes("limits.connections_per_tunnel"),
    "limits.rate_limit_rps": _becomes("limits.requests_per_second", float),
    "limits.ip_rate_limit_rps": _becomes("limits.ip_requests_per_second", float),
    "limits.request_body_max_bytes": _becomes("limits.request_body_bytes"),
    "limits.tcp_port_range": _becomes("listen.tcp_ports", _range),
    "limits.udp_port_range": _has_none("UDP is not forwarded"),
    "region.id": _becomes("server.region"),
    "region.name": _has_none("a region has an id only"),
    "region.location": _has_none("a region has an id only"),
    "p2p.enabled": _NO_PEERS,
    "load_balancing.enabled": _NO_GROUPS,
}
"""What each key of the file becomes."""

_SILENT: Final = frozenset(
    {
        "tls.acme_staging",
        "tls.acme_email",
        "tls.acme_account_dir",
        "tls.cloudflare_zone_id",
        "p2p.direct_enabled",
        "p2p.stun_servers",
        "p2p.punch_timeout_ms",
        "load_balancing.alert_webhook_url",
        "testing.override_server_version",
    }
)
"""Keys that only say more about one that is remarked on."""


def translate(text: str) -> Translation:
    """Return the settings that do what this `server.toml` does.

    Raises:
        ConfigError: it is no TOML, or values in it are none that a rustunnel server takes.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not TOML: {error}"]) from error
    result = Translation()
    # That server redirects visitors of plain HTTP unless it is told otherwise.
    result.put("listen.edge_http_mode", "redirect", "server.plain_http_mode")
    for section, table in document.items():
        if not isinstance(table, dict):
            result.remarks.append(f"{section}: not a section of a rustunnel server")
            continue
        for name, value in table.items():
            key = f"{section}.{name}"
            step = STEPS.get(key)
            if step is not None:
                step(result, key, value)
            elif key not in _SILENT:
                result.remarks.append(f"{key}: unknown, and ignored by rustunnel servers as well")
    if result.problems:
        raise ConfigError(result.problems)
    if "listen.api" in result.values:
        result.remarks.append(
            "server.dashboard_port: open to the network and without TLS, as it was; set "
            "listen.api_tls, or let a proxy end TLS"
        )
    return result


def render_translation(translation: Translation) -> str:
    """Return the settings as a TOML file with the remarks above them."""
    lines = ["# Settings of moleport-server, made from the configuration of a rustunnel server."]
    if translation.remarks:
        lines += ["#", "# Not taken over, or in need of a hand:"]
        lines += [f"#   {remark}" for remark in dict.fromkeys(translation.remarks)]
    section = ""
    for key in keys().values():
        if key.path not in translation.values:
            continue
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        lines.append(render_setting(key, translation.values[key.path]))
    return "\n".join(lines) + "\n"
