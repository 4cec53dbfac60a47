"""Listeners of single tunnels: ports of TCP tunnels, and container ports of EXPOSE and PULL.

The registry knows one kind of listener. Which protocol a port speaks is decided here: EXPOSE is the HTTP
edge with a tunnel that is known before the first byte, PULL the TCP edge on loopback. Visitors of
container ports pass the same rules and limits as all others.
"""

from __future__ import annotations

from moleport_server.config.values import Endpoint
from moleport_server.domain.tunnel import ContainerMode
from moleport_server.edge.accepting import Acceptor
from moleport_server.edge.http import HttpEdge
from moleport_server.edge.plain_listener import listen
from moleport_server.edge.tcp import TcpEdge
from moleport_server.errors import PortTaken
from moleport_server.listening import bind_listener
from moleport_server.registry.live import Tunnel


class TunnelListeners:
    """The listeners of all tunnels (the registry's `PortListeners`).

    Args:
        tcp: serves TCP tunnels and PULL.
    """

    def __init__(self, tcp: TcpEdge) -> None:
        self._tcp = tcp
        self._servers: dict[Tunnel, Acceptor] = {}
        self.edge: HttpEdge
        """Serves EXPOSE; set before the first port is opened."""

    async def open(self, tunnel: Tunnel) -> None:
        """Listen on the tunnel's port.

        Raises:
            PortTaken: another program uses it, or it may not be opened.
        """
        container = tunnel.container
        if container is None or container.mode is ContainerMode.PULL:
            await self._tcp.open(tunnel)
            return
        try:
            sock = bind_listener(Endpoint(container.host, container.port))
        except OSError as error:
            raise PortTaken(f"port {container.port}: {error.strerror or error}") from error
        self._servers[tunnel] = listen(
            sock, lambda address: self.edge.protocol(address=address, tunnel=tunnel)
        )

    def close(self, tunnel: Tunnel, *, reason: str) -> None:
        """Stop listening; connections end after what is under way. Idempotent."""
        server = self._servers.pop(tunnel, None)
        if server is not None:
            server.close()
            self.edge.drain_tunnel(tunnel)
        else:
            self._tcp.close(tunnel, reason=reason)

    def drain(self) -> None:
        """Accept nothing new on EXPOSE ports; the TCP edge is drained by itself."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
