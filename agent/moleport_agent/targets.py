"""Read what people write for their local service into a `Target`.

    3000   :3000   host:3000   [::1]:3000   http://host[:port]   https://host[:port]
    unix:/run/app.sock   unix:///run/app.sock

Pure text work: nothing is resolved or connected here. Each refusal is a sentence that says what to
write instead, because this is the first thing a new user types.
"""

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from moleport_agent.errors import ConfigError
from moleport_agent.settings import Target

_EXAMPLES: Final = (
    "write a port (3000), host:port (localhost:5432), a URL (https://host:8443) "
    "or a socket (unix:/run/app.sock)"
)
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_UNIX_PATH: Final = 107
"""Bytes that the kernels keep for the path of a socket (Linux 108 with its end, macOS 104)."""


def parse_target(
    text: str,
    *,
    insecure: bool = False,
    ca_file: Path | None = None,
    server_name: str | None = None,
) -> Target:
    """Read one target.

    Args:
        text: as people wrote it.
        insecure: do not verify the certificate of an `https://` target.
        ca_file: PEM certificates that vouch for an `https://` target.
        server_name: the name to ask for and to verify; default: the host of the target.

    Raises:
        ConfigError: the text is no target, or TLS is configured for a target without TLS.
    """
    stripped = text.strip()
    if not stripped:
        raise _problem(text, f"is empty; {_EXAMPLES}")
    if stripped.startswith("unix:"):
        target = _unix_target(stripped)
    elif "://" in stripped:
        target = _url_target(stripped, insecure=insecure, ca_file=ca_file, server_name=server_name)
    else:
        host, port = _host_and_port(stripped)
        target = Target(text=stripped, host=host, port=port)
    if not target.tls and (insecure or ca_file is not None or server_name is not None):
        raise _problem(
            text,
            "is reached without TLS, so the options for the upstream's certificate "
            "have no meaning; write https://… or leave them out",
        )
    return target


def _unix_target(text: str) -> Target:
    rest = text.removeprefix("unix:")
    path = rest[2:] if rest.startswith("//") else rest
    if not path.startswith("/"):
        raise _problem(text, "needs an absolute path; write unix:/run/app.sock")
    if "\0" in path or len(path.encode(errors="surrogateescape")) > _LONGEST_UNIX_PATH:
        raise _problem(text, f"has a path of more than {_LONGEST_UNIX_PATH} bytes")
    return Target(text=text, unix_path=Path(path))


def _url_target(
    text: str, *, insecure: bool, ca_file: Path | None, server_name: str | None
) -> Target:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise _problem(text, f"is no URL; {_EXAMPLES}") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise _problem(text, f"has the unknown scheme {parts.scheme!r}; use http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise _problem(text, "must not contain a user or password; leave them out")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _problem(
            text,
            "must end after the port, because the path of each request is passed on as it is; "
            f"write {parts.scheme}://{parts.netloc}",
        )
    host = _checked_host(text, parts.hostname or "")
    tls = parts.scheme == "https"
    return Target(
        text=text,
        host=host,
        port=_url_port(text, parts),
        tls=tls,
        server_name=(server_name or host) if tls else None,
        ca_file=ca_file,
        verify=not insecure,
    )


def _url_port(text: str, parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError as error:
        raise _problem(text, "has a wrong port; it must be a number from 1 to 65535") from error
    if port == 0:
        raise _problem(text, "has a wrong port; it must be a number from 1 to 65535")
    return _DEFAULT_PORTS[parts.scheme] if port is None else port


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise _problem(text, "needs a port behind the address; write [::1]:3000")
        return _checked_host(text, host), _port(text, rest[1:])
    host, colon, port = text.rpartition(":")
    if ":" in host:
        raise _problem(text, "looks like an IPv6 address; write it in brackets, as [::1]:3000")
    if not colon and not text.isascii():
        raise _problem(text, f"is no target; {_EXAMPLES}")
    if not colon and not text.isdigit():
        if "/" in text:
            raise _problem(text, f"looks like a path; {_EXAMPLES}")
        raise _problem(text, f"has no port; write {text}:3000")
    return (_checked_host(text, host) if host else "127.0.0.1"), _port(text, port)


def _port(text: str, digits: str) -> int:
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 5
    if not is_number or not 0 < int(digits) < 65536:
        raise _problem(text, "has a wrong port; it must be a number from 1 to 65535")
    return int(digits)


def _checked_host(text: str, host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise _problem(text, "has no valid IPv6 address; write it as [::1]:3000") from error
    if not host or len(host) > 253 or _HOST.fullmatch(host) is None:
        raise _problem(text, f"has no valid host name; {_EXAMPLES}")
    return host


def _problem(text: str, complaint: str) -> ConfigError:
    return ConfigError([f"target {text!r} {complaint}"])
