"""Turn what people write about one tunnel into a `TunnelSettings`.

One schema, `TunnelEntry`, serves the command line and moleport.yaml, so that a flag and a key of
the same name always mean the same and are refused with the same sentence. `make_tunnel` reports
every problem of an entry at once; the caller puts its own path (`--port`, `tunnels.db.port`) in
front.
"""

import ipaddress
import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from moleport_agent.errors import ConfigError
from moleport_agent.printable import printable
from moleport_agent.settings import Secret, Target, TunnelSettings
from moleport_agent.targets import parse_target

LONGEST_CREDENTIALS_FILE: Final = 256 * 1024
"""Bytes; thousands of users, and a wrong file (a disk image) is refused instead of read."""
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST_HEADER: Final = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_HTTP_ONLY: Final = ("name", "hostname", "host_header", "basic_auth", "basic_auth_file")
_TCP_ONLY: Final = ("port", "proxy_protocol")

Problem = tuple[str, str]
"""The field that is wrong, and a sentence that says what to write."""


class TunnelEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tunnel as written: the keys of an entry in moleport.yaml."""

    protocol: Literal["http", "tcp"]
    target: str | int
    name: str | None = None
    hostname: str | None = None
    host_header: str | None = None
    basic_auth: str | list[str] | None = None
    basic_auth_file: str | None = None
    allow_cidr: str | list[str] | None = None
    port: int | None = None
    proxy_protocol: Literal["v1", "v2"] | None = None
    upstream_insecure: bool = False
    upstream_ca: str | None = None
    upstream_server_name: str | None = None


def make_tunnel(
    name: str, entry: TunnelEntry, directory: Path, problems: list[Problem]
) -> TunnelSettings | None:
    """Check one entry and make its settings.

    Args:
        name: what the tunnel is called in this agent.
        entry: as written.
        directory: where relative file names start.
        problems: what is wrong is appended here.

    Returns:
        The settings, or None if something was appended to `problems`.
    """
    known = len(problems)
    _check_protocol(entry, problems)
    subdomain = _subdomain(entry, problems)
    hostname = _hostname(entry, problems)
    if subdomain is not None and hostname is not None:
        problems.append(("hostname", "excludes name: write either of them"))
    if entry.port is not None and not 0 < entry.port < 65536:
        problems.append(("port", "must be a number from 1 to 65535"))
    host_header = "preserve" if entry.host_header is None else entry.host_header
    if host_header not in ("preserve", "rewrite") and not _HOST_HEADER.fullmatch(host_header):
        problems.append(("host_header", "must be preserve, rewrite or a host name"))
    target = _target(entry, directory, problems)
    basic_auth = _basic_auth(entry, directory, problems)
    allow_cidrs = _allow_cidrs(entry, problems)
    if target is None or len(problems) > known:
        return None
    return TunnelSettings(
        name=name,
        protocol=entry.protocol,
        target=target,
        subdomain=subdomain,
        hostname=hostname,
        port=entry.port,
        host_header=host_header,
        basic_auth=basic_auth,
        allow_cidrs=allow_cidrs,
        proxy_protocol=entry.proxy_protocol,
    )


def _check_protocol(entry: TunnelEntry, problems: list[Problem]) -> None:
    foreign, other = (_TCP_ONLY, "tcp") if entry.protocol == "http" else (_HTTP_ONLY, "http")
    problems.extend(
        (field, f"works with protocol {other} only; leave it out")
        for field in foreign
        if getattr(entry, field) is not None
    )


def _subdomain(entry: TunnelEntry, problems: list[Problem]) -> str | None:
    if entry.name is None:
        return None
    name = entry.name.lower()
    if _LABEL.fullmatch(name):
        return name
    if "." in name:
        problems.append(("name", "is one label, without dots; write a full host name as hostname"))
    else:
        problems.append(
            ("name", "may have letters, digits and inner hyphens only, at most 63 of them")
        )
    return None


def _hostname(entry: TunnelEntry, problems: list[Problem]) -> str | None:
    if entry.hostname is None:
        return None
    hostname = entry.hostname.lower().removesuffix(".")
    labels = hostname.removeprefix("*.").split(".")
    if len(hostname) <= 253 and all(_LABEL.fullmatch(label) for label in labels):
        return hostname
    problems.append(("hostname", "must be a full host name, such as shop.example.com"))
    return None


def _target(entry: TunnelEntry, directory: Path, problems: list[Problem]) -> Target | None:
    ca_file = None if entry.upstream_ca is None else directory / entry.upstream_ca
    if ca_file is not None and not ca_file.is_file():
        problems.append(("upstream_ca", f"names a file that does not exist: {ca_file}"))
    try:
        return parse_target(
            str(entry.target),
            insecure=entry.upstream_insecure,
            ca_file=ca_file,
            server_name=entry.upstream_server_name,
        )
    except ConfigError as error:
        problems.extend(("target", problem) for problem in error.problems)
        return None


def _basic_auth(
    entry: TunnelEntry, directory: Path, problems: list[Problem]
) -> tuple[tuple[str, Secret], ...] | None:
    if entry.basic_auth is None and entry.basic_auth_file is None:
        return None
    found: list[tuple[str, Secret]] = []
    written = entry.basic_auth or []
    for number, line in enumerate([written] if isinstance(written, str) else written, start=1):
        _add_credential("basic_auth", f"entry {number}", line, found, problems)
    if entry.basic_auth_file is not None:
        path = directory / entry.basic_auth_file
        try:
            with path.open("rb") as stream:
                content = stream.read(LONGEST_CREDENTIALS_FILE + 1)
            if len(content) > LONGEST_CREDENTIALS_FILE:
                problems.append(("basic_auth_file", f"{path} is too large to be a list of users"))
                return None
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(("basic_auth_file", f"cannot read {path}: {reason}"))
            return None
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                _add_credential("basic_auth_file", f"line {number}", line, found, problems)
        if not found:
            problems.append(("basic_auth_file", f"{path} has no line user:password"))
    return tuple(found)


def _add_credential(
    field: str,
    where: str,
    text: str,
    found: list[tuple[str, Secret]],
    problems: list[Problem],
) -> None:
    user, colon, password = text.partition(":")
    # The text itself stays out of the sentence: it may be a password without its user.
    if not (user and colon and password):
        problems.append((field, f"{where} must be user:password, and neither may be empty"))
    elif not text.isprintable():
        problems.append((field, f"{where} contains a control character"))
    elif any(user == known for known, _ in found):
        problems.append((field, f"{where} names the user {printable(user)} a second time"))
    else:
        found.append((user, Secret(password)))


def _allow_cidrs(entry: TunnelEntry, problems: list[Problem]) -> tuple[str, ...] | None:
    written = entry.allow_cidr
    if written is None:
        return None
    networks: list[str] = []
    for text in [written] if isinstance(written, str) else written:
        try:
            networks.append(str(ipaddress.ip_network(text.strip())))
        except ValueError:
            problems.append(("allow_cidr", _cidr_complaint(text)))
    return tuple(networks)


def _cidr_complaint(text: str) -> str:
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return f"{text!r} is no network; write it as 10.0.0.0/8 or 2001:db8::/32"
    return f"{text!r} has bits behind its prefix; write {network}"
