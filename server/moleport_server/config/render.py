"""Shows settings to people: the effective ones as TOML, secrets masked."""

import json
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from moleport_server.config.load import Resolved
from moleport_server.config.schema import Key, keys, value_of
from moleport_server.config.values import CertificateFiles, Endpoint, PortRange, Secret


def render_effective(resolved: Resolved) -> str:
    """Return all settings as TOML; values that are not defaults name their source."""
    lines: list[str] = []
    section = ""
    for key in keys().values():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        line = render_setting(key, value_of(resolved.settings, key))
        source = resolved.sources.get(key.path)
        lines.append(line if source is None else f"{line}  # from {source}")
    return "\n".join(lines) + "\n"


def render_setting(key: Key, value: object) -> str:
    """Return one setting as a line of TOML; commented out if it has no value, or a secret one."""
    if value is None and key.is_secret:
        return f"# {key.name} ="
    if isinstance(value, Secret):
        return f'# {key.name} = "***"'
    if value is None and "off" not in key.expectation:
        return f"# {key.name} ="
    return f"{key.name} = {render_value(value)}"


def render_value(value: object) -> str:
    """Return a value as TOML.

    Raises:
        TypeError: settings have no such type.
    """
    match value:
        case None:
            return '"off"'
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str() | Path() | Endpoint() | PortRange() | IPv4Network() | IPv6Network():
            # The escapes of JSON are escapes of TOML, too; only DEL is left as it is.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case CertificateFiles():
            files: Mapping[str, Path] = {
                "certificate_file": value.certificate_file,
                "key_file": value.key_file,
            }
            pairs = (f"{name} = {render_value(path)}" for name, path in files.items())
            return f"{{ {', '.join(pairs)} }}"
        case tuple():
            return f"[{', '.join(render_value(item) for item in value)}]"
        case _:
            raise TypeError(f"{type(value).__name__} is not the type of a setting")
