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
    https_port: int | None = None
    """The public port of https, where `scheme` is http and there is one."""

    def http_url(self, hostname: str) -> str:
        """Return the URL of an HTTP tunnel."""
        return _url(self.scheme, hostname, self.port)

    def https_url(self, hostname: str) -> str:
        """Return the URL of an HTTP tunnel with https if that is possible, else as `http_url`."""
        if self.https_port is None:
            return self.http_url(hostname)
        return _url("https", hostname, self.https_port)

    def tcp_url(self, port: int) -> str:
        """Return the URL of a TCP tunnel."""
        return f"tcp://{self.tcp_host}:{port}"

    def url(self, hostname: str | None, port: int | None) -> str:
        """Return the URL of a tunnel with this host name or this TCP port; empty if it has neither."""
        if hostname is not None:
            return self.http_url(hostname)
        return "" if port is None else self.tcp_url(port)


def _url(scheme: str, hostname: str, port: int) -> str:
    return f"{scheme}://{hostname}" + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")
