"""Public addresses: how a host name or a port is written for people and programs.

Pods bind other ports than visitors use, so URLs are built from the public settings and never from a
listener. A port is left out only when it is the scheme's default.
"""

from dataclasses import dataclass

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAddresses:
    """What visitors use."""

    scheme: str
    """`http` or `https`."""
    port: int
    """The public port of that scheme."""
    tcp_host: str
    """Host name of TCP tunnels."""

    def http_url(self, hostname: str) -> str:
        """Return the URL of an HTTP tunnel."""
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return f"{self.scheme}://{hostname}"
        return f"{self.scheme}://{hostname}:{self.port}"

    def tcp_url(self, port: int) -> str:
        """Return the URL of a TCP tunnel."""
        return f"tcp://{self.tcp_host}:{port}"
