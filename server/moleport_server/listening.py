"""The server's listeners, bound before anything slow.

A restarted server reads its libraries and its state for most of a second. Its sockets listen before
that, so that whoever comes meanwhile waits in the kernel's backlog and is not refused; nobody is served
before all leases are back. The same holds for the ports of TCP tunnels that the last run gave out.
"""

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Self

from moleport_server.config.values import Endpoint
from moleport_wire.aio.socket_options import tune_listener

BACKLOG: Final = 1024
"""Connections that the kernel keeps for us: the burst of all agents and visitors after a restart."""


def bind_listener(endpoint: Endpoint) -> socket.socket:
    """Return a listening socket; the caller closes it.

    Raises:
        OSError: the address is in use, not ours or not allowed.
    """
    family, _, _, _, address = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    tune_listener(sock)
    sock.settimeout(0)
    return sock


class AddressesRefused(Exception):
    """Some addresses cannot be listened on.

    Attributes:
        refused: one sentence for each, by the name of its listener.
    """

    def __init__(self, refused: dict[str, str]) -> None:
        super().__init__("; ".join(refused.values()))
        self.refused = refused


class BoundListeners:
    """Listening sockets by their addresses, until somebody takes them over."""

    def __init__(self, sockets: Mapping[Endpoint, socket.socket] | None = None) -> None:
        self._sockets = dict(sockets or {})

    @classmethod
    def bind(cls, endpoints: Mapping[str, Endpoint]) -> Self:
        """Bind every address, or none.

        Raises:
            AddressesRefused: with a sentence for each that failed.
        """
        sockets: dict[Endpoint, socket.socket] = {}
        refused: dict[str, str] = {}
        for name, endpoint in endpoints.items():
            try:
                sockets[endpoint] = bind_listener(endpoint)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    refused[name] = f"port {endpoint.port} for {name} is in use ({endpoint})"
                else:
                    reason = error.strerror or error
                    refused[name] = f"{name} cannot listen on {endpoint}: {reason}"
        bound = cls(sockets)
        if refused:
            bound.close()
            raise AddressesRefused(refused)
        return bound

    @classmethod
    def bind_free(cls, endpoints: Iterable[Endpoint]) -> Self:
        """Bind those addresses that can be; whoever takes another one is told why not."""
        sockets: dict[Endpoint, socket.socket] = {}
        for endpoint in endpoints:
            with suppress(OSError):
                sockets[endpoint] = bind_listener(endpoint)
        return cls(sockets)

    def take(self, endpoint: Endpoint) -> socket.socket:
        """Return the socket of an address, bound now if it was not; the caller closes it.

        Raises:
            OSError: the address is in use, not ours or not allowed.
        """
        sock = self._sockets.pop(endpoint, None)
        return bind_listener(endpoint) if sock is None else sock

    def close(self) -> None:
        """Close what nobody took; idempotent."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
