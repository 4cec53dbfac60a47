"""What an agent needs to run, already checked: made by `config`, read by `agent`.

Frozen, keyword-only dataclasses; secrets have a masked `repr` and may change when their file does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Secret(str):
    """A text that never shows itself in `repr`, logs or tracebacks; `str(secret)` is the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The local service: where the agent connects to for each stream."""

    text: str
    """As people wrote it, for messages."""
    host: str = "127.0.0.1"
    port: int = 0
    unix_path: Path | None = None
    """A unix socket instead of host and port."""
    tls: bool = False
    server_name: str | None = None
    """SNI and the name to verify, when `tls`; default: the host."""
    ca_file: Path | None = None
    verify: bool = True
    """False after `--upstream-insecure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    """A port inside of the cluster instead of a public name or port of its own."""

    mode: str
    """`expose`: HTTP for the pod network, `pull`: TCP on loopback of the pod."""
    port: int = 0
    """0: any."""
    host: str | None = None
    """Where a pull listens; None: 127.0.0.1."""
    takes_over: bool = False
    """Whether another agent of the same token loses the port at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSettings:
    """One tunnel that the agent asks for."""

    name: str
    """Unique in one agent; for people and logs, not the public name."""
    protocol: str
    """`http` or `tcp`."""
    target: Target
    subdomain: str | None = None
    hostname: str | None = None
    """Full host name; excludes `subdomain`."""
    port: int | None = None
    """Wanted TCP port."""
    container: ContainerPort | None = None
    host_header: str = "preserve"
    """`preserve`, `rewrite` or a fixed value."""
    basic_auth: tuple[tuple[str, Secret], ...] | None = None
    allow_cidrs: tuple[str, ...] | None = None
    proxy_protocol: str | None = None
    """`v1` or `v2` towards the local service (TCP), None: off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server is and how to trust it."""

    url: str
    """Base URL of the control listener, `https://host:4040`, without a trailing slash."""
    read_token: Callable[[], Secret]
    """Returns the current token; reads its file anew, so that a rotation is seen.

    Raises:
        OSError: the file cannot be read.
    """
    ca_file: Path | None = None
    insecure: bool = False
    """Do not verify the server's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything for one running agent."""

    server: ServerSettings
    tunnels: tuple[TunnelSettings, ...]
    connections: int = 1
    """Transport connections of the session, 1 to 16."""
    backoff_first_seconds: float = 0.1
    backoff_limit_seconds: float = 15.0
    report_requests: bool = True
    """Whether the server tells about each request, for the live view."""
    token_poll_seconds: float = 5.0
    """How often the token file is looked at."""
    memory_file: Path | None = None
    """Where the last names of unnamed tunnels are remembered; None: nowhere."""
