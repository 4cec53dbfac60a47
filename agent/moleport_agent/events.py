"""What a running agent reports to whoever shows it: frozen facts, in the order they happened."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connecting:
    """The agent dials; `attempt` counts from 1 since the last success."""

    server: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The session is up; `resumed` tells that the server still knew it."""

    session_id: str
    server: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class TunnelOpened:
    """A tunnel has its public address."""

    name: str
    """The tunnel's name in the configuration; unique in one agent."""
    public_url: str
    """Empty if only the pod network reaches it."""
    target: str
    container_port: int | None = None
    """Inside of the cluster; None if it has none."""

    @property
    def address(self) -> str:
        """Where visitors find it, for people."""
        if self.container_port is None:
            return self.public_url
        port = f"container port {self.container_port}"
        return f"{self.public_url} and {port}" if self.public_url else port


@dataclass(frozen=True, slots=True)
class TunnelRefused:
    """The server said no to one tunnel, and why; the others go on."""

    name: str
    code: str
    message: str
    is_final: bool
    """Whether asking again is pointless."""


@dataclass(frozen=True, slots=True)
class TunnelClosed:
    """The server closed one tunnel, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; the next attempt comes in `retry_in_seconds` (None: never)."""

    reason: str
    retry_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """A visitor's request or connection ended, as the server's edge saw it."""

    name: str
    method: str
    path: str
    """Without its query."""
    status: int
    """0 for a TCP connection."""
    duration_ms: float
    peer: str


@dataclass(frozen=True, slots=True)
class RequestsSkipped:
    """So many requests were not reported one by one, because there were too many."""

    count: int


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """A round trip to the server took this long."""

    milliseconds: float


@dataclass(frozen=True, slots=True)
class Draining:
    """The server goes away soon; the agent moves over while open streams finish."""

    deadline_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """The local service could not be reached."""

    name: str
    target: str
    reason: str


AgentEvent = (
    Connecting
    | Connected
    | TunnelOpened
    | TunnelRefused
    | TunnelClosed
    | Disconnected
    | RequestSeen
    | RequestsSkipped
    | LatencyMeasured
    | Draining
    | UpstreamFailed
)

Observer = Callable[[AgentEvent], None]
"""Called on the event loop; must return at once and must not raise."""
