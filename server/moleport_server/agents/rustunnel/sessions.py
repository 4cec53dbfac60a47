"""What all rustunnel sessions of this process share, and where a data channel finds its session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from moleport_server.registry.addresses import PublicAddresses
from moleport_wire.hoody.window import ReceiveBudget

if TYPE_CHECKING:
    from moleport_server.access.audit import AuditLog
    from moleport_server.access.authentication import Authenticator
    from moleport_server.agents.flow import FlowWatch
    from moleport_server.agents.rustunnel.session import RustunnelSession
    from moleport_server.clock import Clock
    from moleport_server.registry.registry import Registry
    from moleport_wire.aio.tasks import TaskOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class RustunnelSettings:
    """Bounds of one session; the reasons are what stock clients do (docs/reference/rustunnel.md)."""

    first_frame_seconds: float = 5.0
    """How long the first message and the check of its token may each take; a client waits 10 s."""
    attach_seconds: float = 15.0
    """How long a client may be without a data channel: it serves nobody meanwhile. Clients since
    0.4.10 try for some 3 s to attach again, older ones connect anew; one whose first attempt failed
    does neither, and has to be told by losing its control channel."""
    ping_seconds: float = 15.0
    silence_seconds: float = 40.0
    """A client that says nothing for so long, answers to pings included, is gone."""
    linger_seconds: float = 5.0
    """How long the data channel of a client that was sent away stays, for its control channel has to
    end first."""
    tick_seconds: float = 5.0
    """How often a session looks at its clocks."""
    stream_seconds: float = 30.0
    """How long a stream may wait for one of the few hundred that a client can have."""
    credit_seconds: float = 10.0
    """How long bytes wait for credit of a client that ended its own direction: it may have forgotten
    the stream without a word."""
    write_buffer_bytes: int = 256 * 1024
    server_name: str = "moleport"
    addresses: PublicAddresses
    """For tunnels that ask for https."""


class RustunnelSessions:
    """Everything that the sessions share.

    The secret under which a data channel finds its session is not the id that people see: ids are in
    logs and in the API, and whoever has the secret gets the visitors' bytes.
    """

    def __init__(
        self,
        settings: RustunnelSettings,
        registry: Registry,
        authenticator: Authenticator,
        *,
        flow: FlowWatch,
        tasks: TaskOwner,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.authenticator = authenticator
        self.flow = flow
        self.tasks = tasks
        self.clock = clock
        self.audit = audit
        self.is_draining = False
        self.by_secret: dict[UUID, RustunnelSession] = {}
        """Live sessions by what their clients name in `/_data/…`."""
        self.rtt_seconds: Callable[[float], None] = lambda _: None
        """Called with each measured round trip."""

    @property
    def budget(self) -> ReceiveBudget:
        """The receive budget of the process."""
        return self.flow.budget
