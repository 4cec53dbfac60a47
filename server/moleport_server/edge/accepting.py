"""Accept connections of a plain listener, each at the cost of its transport.

`aiofastnet.create_server` starts a task per connection, which costs more than the transport that it makes;
visitors who open a connection per request are many. And when descriptors run out it fails to pause (1.2),
where a listener has to wait: the kernel keeps those who come in its backlog.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

# Not exported by the package, but the one thing that `create_connection` and `create_server` make.
from aiofastnet.selector_transport import SelectorSocketTransport

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Connections accepted per turn of the loop; the others wait in the backlog for the next one."""
PAUSE_SECONDS: Final = 1.0
"""When descriptors or memory run out."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts until it is closed; what was accepted goes on then.

    Args:
        sock: a socket that listens already and does not block; closed with the acceptor.
        make_protocol: called for each connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol | asyncio.BufferedProtocol],
    ) -> None:
        self._sock = sock
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._resume()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._sock.getsockname()[1]
        return port

    def close(self) -> None:
        """Accept nothing more; idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is None:
            self._loop.remove_reader(self._sock.fileno())
        else:
            self._timer.cancel()
        self._sock.close()

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._is_closed:
                return
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # it left before its turn
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise  # the loop logs it
                logger.warning("cannot accept for a second", extra={"error": str(error)})
                self._loop.remove_reader(self._sock.fileno())
                self._timer = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            connection.setblocking(False)  # noqa: FBT003 - its only argument
            try:
                SelectorSocketTransport(self._loop, connection, self._make_protocol())
            except Exception:
                connection.close()
                raise
