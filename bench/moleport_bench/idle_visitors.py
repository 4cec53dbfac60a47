"""Visitors that hold connections: idle ones after an answer, ones that wait, and ones that stop reading."""

import socket
import time
from contextlib import ExitStack
from typing import Self

from moleport_bench.address import Address
from moleport_bench.errors import LoadError

PATIENCE_SECONDS = 10.0
STALLED_BUFFER_BYTES = 65_536
"""Small and fixed, so that what a stalled visitor does not take stays in the tunnel."""


class IdleVisitors(ExitStack):
    """Connections that stay open until the block ends."""

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self.count = 0
        self.seconds = 0.0
        """How long `keep_alive` has taken."""

    def __enter__(self) -> Self:
        return self

    def keep_alive(self, count: int) -> None:
        """Open so many more that got one answer each and stay.

        Raises:
            LoadError: one was refused or not answered.
        """
        head = self._address.head("/")
        began = time.monotonic()
        for _ in range(count):
            connection = self._open(head)
            try:
                answer = connection.recv(4096)
            except OSError as error:
                raise LoadError(f"connection {self.count} got no answer: {error}") from None
            if b" 200 " not in answer[:20]:
                raise LoadError(f"connection {self.count} was refused: {answer[:60]!r}")
        self.seconds += time.monotonic() - began

    def wait_for(self, path: str, count: int) -> None:
        """Open so many that ask for something and wait.

        Raises:
            LoadError: one was refused.
        """
        head = self._address.head(path)
        for _ in range(count):
            self._open(head)

    def stall(self, path: str, count: int) -> None:
        """Open so many that ask for a large file and read nothing of it.

        Raises:
            LoadError: one was refused.
        """
        head = self._address.head(path)
        for _ in range(count):
            self._open(head, receive_buffer=STALLED_BUFFER_BYTES)

    def _open(self, head: bytes, *, receive_buffer: int | None = None) -> socket.socket:
        connection = self.enter_context(socket.socket())
        connection.settimeout(PATIENCE_SECONDS)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            connection.connect(("127.0.0.1", self._address.port))
            connection.sendall(head)
        except OSError as error:
            raise LoadError(f"connection {self.count} failed: {error}") from None
        self.count += 1
        return connection
