"""The types of single settings, and how each is read from text.

A parser takes what a TOML file, an environment variable or a flag may hold and returns the value or
raises ValueError with a sentence that tells what to write instead; the loader adds the key's path.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from moleport_server.domain.tunnel import IPNetwork

_CERTIFICATE_KEYS = ["certificate_file", "key_file"]
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")


class Secret:
    """A text that shows itself only to callers of `reveal`: masked in `repr`, `str` and formats."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; do not log it or keep it where it could be printed."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on."""

    host: str
    """IP address, or a name that resolves to a local one."""
    port: int
    """0 lets the system choose."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, other: "Endpoint") -> bool:
        """Whether both cannot be listened on at the same time; port 0 never overlaps."""
        return 0 < self.port == other.port and hosts_overlap(self.host, other.host)


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate chain and its key, both PEM."""

    certificate_file: Path
    """Leaf first, then the intermediate certificates."""
    key_file: Path
    """Without a passphrase."""


def hosts_overlap(first: str, second: str) -> bool:
    """Whether one address covers the other, as a wildcard or by being the same."""
    if first == second:
        return True
    one, two = _address(first), _address(second)
    # A dual-stack system may bind [::] for IPv4 as well, so it counts as covering both.
    if first in {"::", ""} or second in {"::", ""}:
        return True
    if one is not None and two is not None and one.version == two.version:
        return one.is_unspecified or two.is_unspecified
    return one is None or two is None


def parse_endpoint(value: object) -> Endpoint | None:
    """Read `host:port`, `[v6]:port`, `:port` (all interfaces) or `off` (None)."""
    if value is False or value == "off":
        return None
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            is_host = isinstance(_address(host), IPv6Address)
        else:
            host = host or "0.0.0.0"  # noqa: S104 - `:port` is asked for explicitly
            is_host = isinstance(_address(host), IPv4Address) or _is_host_name(host)
        if colon and is_host and _is_port(port):
            return Endpoint(host, int(port))
    raise ValueError('expected "host:port" (IPv6 in brackets) or "off"')


def parse_port_range(value: object) -> PortRange:
    """Read `first-last`, or one port."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        first, dash, last = value.partition("-")
        first, last = first.strip(), last.strip() if dash else first.strip()
        if _is_port(first) and _is_port(last) and 0 < int(first) <= int(last):
            return PortRange(int(first), int(last))
    raise ValueError('expected ports from 1 to 65535 as "first-last", the lower one first')


def parse_path(value: object) -> Path:
    """Read a path; a relative one is meant from the working directory."""
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("expected a path")


def parse_secret(value: object) -> Secret:
    """Read a secret, which must not be empty, contain spaces or control characters."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        if value:
            return Secret(value)
        raise ValueError("must not be empty")
    raise ValueError("expected text of visible ASCII characters")


def parse_networks(value: object) -> tuple[IPNetwork, ...]:
    """Read addresses and CIDRs: a list, or text with commas between them."""
    return tuple(_network(item) for item in parse_texts(value))


def parse_domains(value: object) -> tuple[str, ...]:
    """Read domain names: a list, or text with commas; lower case, without a trailing dot."""
    domains = tuple(text.lower().removesuffix(".") for text in parse_texts(value))
    for domain in domains:
        if not _is_host_name(domain):
            raise ValueError(f"{domain!r} is not a domain name")
    if not domains:
        raise ValueError("expected at least one domain")
    if len(set(domains)) != len(domains):
        raise ValueError("contains a domain twice")
    return domains


def parse_host(value: object) -> str | None:
    """Read one host name or IP address; empty text means none."""
    if value == "":
        return None
    if isinstance(value, str):
        host = value.lower().removesuffix(".")
        if _is_host_name(host) or _address(host) is not None:
            return host
    raise ValueError("expected a host name without scheme and port")


def parse_url(value: object) -> str | None:
    """Read an `http` or `https` base URL; empty text means none, a trailing slash is dropped."""
    if value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/?#@]+/?", value):
        return value.removesuffix("/")
    raise ValueError('expected a base URL such as "https://control.example.com:4040"')


def parse_texts(value: object) -> tuple[str, ...]:
    """Read a list of texts, or one text with commas between the items."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise ValueError("expected a list of texts")


def parse_certificates(value: object) -> tuple[CertificateFiles, ...]:
    """Read a list of tables, or text `certificate:key,certificate:key`."""
    if isinstance(value, str):
        pairs = [item.split(":") for item in parse_texts(value)]
        value = [dict(zip(_CERTIFICATE_KEYS, pair, strict=False)) for pair in pairs]
    if isinstance(value, (list, tuple)):
        return tuple(_certificate(item) for item in value)
    raise ValueError("expected a list of tables with certificate_file and key_file")


def _certificate(item: object) -> CertificateFiles:
    if isinstance(item, dict) and sorted(item) == _CERTIFICATE_KEYS:
        return CertificateFiles(
            certificate_file=parse_path(item["certificate_file"]),
            key_file=parse_path(item["key_file"]),
        )
    raise ValueError("expected exactly certificate_file and key_file in each item")


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IP address or CIDR: {error}") from None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _is_host_name(text: str) -> bool:
    return len(text) <= 253 and all(_HOST_LABEL.match(label) for label in text.lower().split("."))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535
