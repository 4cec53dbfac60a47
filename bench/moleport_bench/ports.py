"""Ports for everything that a measurement starts.

They lie below the range from which Linux takes the ports of outgoing connections: ten thousand
connections of a load generator would otherwise sit on the port of the next peer.
"""

import contextlib
import itertools
import socket

FIRST, LAST = 12_000, 31_800
MOLEPORT_BLOCK = 200
"""A moleport server takes five ports and a hundred for TCP tunnels; see `--port-base`."""


class Ports:
    """Hands out ports that nobody listens on, none twice."""

    def __init__(self, first: int = FIRST, last: int = LAST) -> None:
        self._range = itertools.cycle(range(first, last))
        self._size = last - first

    def one(self) -> int:
        """Return a free port.

        Raises:
            OSError: none is left.
        """
        return self.block(1)

    def block(self, count: int) -> int:
        """Return the first of so many free ports in a row.

        Raises:
            OSError: there is no such row.
        """
        free: list[int] = []
        for _ in range(self._size + count):
            port = next(self._range)
            if free and port != free[-1] + 1:
                free.clear()
            if is_free(port):
                free.append(port)
            else:
                free.clear()
            if len(free) == count:
                return free[0]
        raise OSError(f"no {count} free ports in a row")


def is_free(port: int) -> bool:
    """Tell whether a port can be listened on now."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False
