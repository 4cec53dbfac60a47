"""The way to the server: directly or through a proxy, name resolution and TCP.

Blocking sockets with a deadline on each step, because the doctor is slow on purpose: it takes one
step at a time to see which of them fails.
"""

import socket
import threading
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from python_socks import ProxyError
from python_socks.sync import Proxy

from moleport_agent.dialer import find_proxy
from moleport_agent.doctor.findings import Finding, failed, ok

STEP_SECONDS: Final = 10.0
"""Longest time for one step; whoever waits longer gives up anyway."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How the server is reached."""

    host: str
    port: int
    tls: bool
    proxy: str | None = None
    """URL of the proxy; it may hold a password, so it is shown through `proxy_name` only."""

    @property
    def proxy_name(self) -> str:
        """The proxy without its credentials."""
        parts = urlsplit(self.proxy or "")
        return f"{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 1080)}"

    @property
    def first_hop(self) -> tuple[str, int]:
        """Host and port of what the agent really connects to."""
        if self.proxy is None:
            return self.host, self.port
        host, _, port = self.proxy_name.rpartition(":")
        return host, int(port)

    def connect(self, seconds: float = STEP_SECONDS) -> socket.socket:
        """Connect to the server, through the proxy if there is one; the caller closes the socket.

        Raises:
            OSError: nothing accepted the connection in time.
            ProxyError: the proxy refused.
        """
        if self.proxy is None:
            return socket.create_connection((self.host, self.port), timeout=seconds)
        connection: socket.socket = Proxy.from_url(self.proxy).connect(
            self.host, self.port, timeout=seconds
        )
        connection.settimeout(seconds)
        return connection


def find_route(url: str) -> Route:
    """Find the way to a server's base URL: the one that the agent takes."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return Route(
        host=host,
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "https",
        proxy=find_proxy(url),
    )


def check_proxy(route: Route) -> Finding:
    """Say which way is taken."""
    if route.proxy is None:
        return ok("proxy", f"no proxy is used for {route.host}")
    try:
        Proxy.from_url(route.proxy)
        hop = route.first_hop
    except ValueError as error:
        return failed(
            "proxy",
            f"the configured proxy is unusable: {error}",
            "write HTTPS_PROXY as http://host:port, or name the server in NO_PROXY",
        )
    return ok("proxy", f"{route.host} is reached through the proxy {hop[0]}:{hop[1]}")


def check_names(route: Route) -> Finding:
    """Resolve the name of the server, or of the proxy that will resolve the server's."""
    host, port = route.first_hop
    found: list[str] | OSError = TimeoutError("timed out")

    def resolve() -> None:
        nonlocal found
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except OSError as error:
            found = error
        except UnicodeError:
            found = OSError("the name is not valid")

    # `getaddrinfo` knows no deadline of its own.
    thread = threading.Thread(target=resolve, name="resolve", daemon=True)
    thread.start()
    thread.join(STEP_SECONDS)
    if isinstance(found, OSError):
        return failed(
            "name resolution",
            f"{host} has no address: {found.strerror or found}",
            f"check the spelling, and that `nslookup {host}` works on this machine (VPN, DNS)",
        )
    return ok("name resolution", f"{host} is {', '.join(found)}")


def check_tcp(route: Route) -> Finding:
    """Open a TCP connection, as far as the proxy lets us."""
    way = f"{route.host}:{route.port}"
    if route.proxy is not None:
        way += f" through {route.proxy_name}"
    try:
        route.connect().close()
    except ProxyError as error:
        return failed(
            "tcp",
            f"the proxy did not connect to {way}: {error}",
            "ask who runs the proxy to allow CONNECT to this host and port, "
            "check its user and password, or name the server in NO_PROXY",
        )
    except TimeoutError:
        return failed(
            "tcp",
            f"{way} did not answer within {STEP_SECONDS:.0f} s",
            "a firewall drops it: open the port, or use the server's port 443",
        )
    except ConnectionRefusedError:
        return failed(
            "tcp",
            f"{way} refuses connections",
            "check the port (the control listener is 4040 by default) and that the server runs",
        )
    except OSError as error:
        return failed(
            "tcp",
            f"{way} cannot be reached: {error.strerror or error}",
            "check that this machine has a network, and a route to the server",
        )
    return ok("tcp", f"{way} accepts connections")
