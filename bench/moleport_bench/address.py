"""Where visitors reach a service: what every load generator needs to know about a peer's public side."""

from typing import NamedTuple


class Address(NamedTuple):
    """The public side of a tunnel."""

    port: int
    host: str = "127.0.0.1"
    """The Host field. Connections always go to 127.0.0.1: names need no resolving that way."""
    tls: bool = False

    def url(self, path: str = "/") -> str:
        """Return the URL of a path, with the address that is connected to."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def head(self, path: str = "/", *fields: str) -> bytes:
        """Return the head of a GET request."""
        lines = (f"GET {path} HTTP/1.1", f"Host: {self.host}", *fields, "", "")
        return "\r\n".join(lines).encode("ascii")
