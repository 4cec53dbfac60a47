"""Settings of the operator; `main.py` fills them from flags and the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess:
    """How the operator reaches the REST API of the tunnel server."""

    url: str
    """`https://…`, without `/api`."""
    token_file: Path
    """The admin token; read again when it changes."""
    ca_file: Path | None = None
    """PEM; None: the roots of the system."""
    request_seconds: float = 10.0
    """Of one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """Everything that can be set."""

    server: ServerAccess
    agent_url: str | None = None
    """What Secrets name as the server; None: `https://control.<first domain>` of the server."""
    agent_ca_file: Path | None = None
    """PEM that goes into Secrets as `ca.crt`; None: none, agents use their system's roots."""
    owner_id: str | None = None
    """Marks what is ours at the server; None: the uid of the namespace kube-system."""
    namespaces: tuple[str, ...] = ()
    """Watched namespaces; empty: the whole cluster."""
    resync_seconds: float = 600.0
    """Every resource is looked at again this often, spread over the period."""
    usage_seconds: float = 60.0
    """How often usage is fetched for status."""
    workers: int = 16
    """Rounds at the same time."""
    health_host: str = "0.0.0.0"  # noqa: S104 - kubelet and Prometheus come from outside of the pod
    health_port: int = 9090
    object_metrics: int = 1000
    """Up to so many tokens each has series of its own; above, only those that need attention."""
    lease: str | None = None
    """`NAMESPACE/NAME` of a Lease; of several operators only its holder works."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    identity: str = field(default="moleport-operator")
    """Who we are in Lease and events: the pod's name."""
