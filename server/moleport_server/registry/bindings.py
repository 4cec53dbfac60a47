"""The bindings: which tunnel has which name, port and container port, and whose they are.

A plain table without time, store or sockets. `lookup` is on the way of every request; everything else
is asked when something begins or ends. A binding is here from the moment it is given out, also while
its listener still opens and while its agent is away, so nobody else can be given it.
"""

from typing import Final
from uuid import UUID

from moleport_server.access.authorization import PortOrder
from moleport_server.registry.container_ports import ContainerPorts
from moleport_server.registry.live import Tunnel

ROUTE_CACHE_SIZE: Final = 4096
"""Visitors choose the names they ask for, so the answers that are kept are bounded."""


class Bindings:
    """The tunnels of one server, live and leased, by each of their addresses.

    Args:
        tcp_ports: the inclusive range that TCP tunnels are given.
        container_ports: the table of those, which follows this one.
    """

    def __init__(self, tcp_ports: tuple[int, int], container_ports: ContainerPorts) -> None:
        self.tunnels: dict[UUID, Tunnel] = {}
        """By id; changed only by `add` and `remove`."""
        self.ports = PortOrder(*tcp_ports)
        """In which order ports are given out."""
        self._container_ports = container_ports
        self._by_hostname: dict[str, Tunnel] = {}
        self._by_port: dict[int, Tunnel] = {}
        self._routes: dict[str, Tunnel | None] = {}

    def lookup(self, hostname: str) -> Tunnel | None:
        """Find the tunnel for a normalised host name: exact, then wildcard.

        A leased exact name wins over a live wildcard, so that visitors of an absent agent are never
        shown somebody else's site.
        """
        try:
            return self._routes[hostname]
        except KeyError:
            pass
        tunnel = self._by_hostname.get(hostname)
        if tunnel is None:
            parent = hostname
            while tunnel is None and "." in parent:
                parent = parent.partition(".")[2]
                tunnel = self._by_hostname.get(f"*.{parent}")
        if len(self._routes) >= ROUTE_CACHE_SIZE:
            self._routes.clear()
        self._routes[hostname] = tunnel
        return tunnel

    def __contains__(self, tunnel: Tunnel) -> bool:
        return self.tunnels.get(tunnel.id) is tunnel

    def of_hostname(self, hostname: str) -> Tunnel | None:
        """Return the tunnel with exactly this name or wildcard."""
        return self._by_hostname.get(hostname)

    def of_port(self, port: int) -> Tunnel | None:
        """Return the tunnel with this TCP port."""
        return self._by_port.get(port)

    def of_session(self, session_id: str) -> list[Tunnel]:
        """Return the tunnels of a session, live or parked, in the order they were opened."""
        return [t for t in self.tunnels.values() if t.session_id == session_id]

    def of_token(self, token_id: str | None) -> list[Tunnel]:
        """Return the tunnels of a token, live and leased, in the order they were opened."""
        return [t for t in self.tunnels.values() if t.token_id == token_id]

    def add(self, tunnel: Tunnel) -> None:
        """Give a tunnel its addresses; the caller has seen that they are free."""
        self.tunnels[tunnel.id] = tunnel
        if tunnel.hostname is not None:
            self._by_hostname[tunnel.hostname] = tunnel
            self._routes.clear()
        if tunnel.port is not None:
            self._by_port[tunnel.port] = tunnel
        self._container_ports.add(tunnel)

    def remove(self, tunnel: Tunnel) -> None:
        """Free its addresses; what is another's by now stays; idempotent."""
        self.tunnels.pop(tunnel.id, None)
        if tunnel.hostname is not None and self._by_hostname.get(tunnel.hostname) is tunnel:
            del self._by_hostname[tunnel.hostname]
            self._routes.clear()
        if tunnel.port is not None and self._by_port.get(tunnel.port) is tunnel:
            del self._by_port[tunnel.port]
            self.ports.touch(tunnel.port)
        self._container_ports.remove(tunnel)
