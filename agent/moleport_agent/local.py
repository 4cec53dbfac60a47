"""Local services: one connection per stream, spliced without looking at the bytes.

The server's edge speaks HTTP over the stream and keeps streams for the next request, so a connection
here usually serves many requests.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Final, Literal

import aiofastnet

# Not exported by the package, but the one thing that `create_connection` makes for a plain socket.
from aiofastnet.selector_transport import SelectorSocketTransport

from moleport_agent.events import Observer, UpstreamFailed
from moleport_agent.settings import Target, TunnelSettings
from moleport_agent.trust import data_path_context
from moleport_wire import proxy_protocol
from moleport_wire.aio.sockets import ReadBuffer
from moleport_wire.aio.splice import Splice
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import Stream

CONNECT_SECONDS: Final = 5.0


class LocalService:
    """Connects streams of one tunnel to its target.

    Args:
        tunnel: where to.
        observe: told what went wrong.
        tasks: owns what takes longer.
        buffer: what all services of an agent read into: with one for each, a thousand tunnels would
            walk through 64 MiB.
    """

    def __init__(
        self, tunnel: TunnelSettings, observe: Observer, tasks: TaskOwner, buffer: ReadBuffer
    ) -> None:
        self.tunnel = tunnel
        self._observe = observe
        self._tasks = tasks
        self._tls = _tls_context(tunnel.target)
        self._address = None if self._tls is not None else _numeric(tunnel.target)
        self._splices: set[Splice] = set()
        self._buffer = buffer

    @property
    def open_connections(self) -> int:
        """Connections that are open or opening."""
        return len(self._splices)

    def serve(self, accept: Callable[[Splice], Stream], peer: str) -> None:
        """Connect to the target and splice it with the stream that `accept` makes."""
        version = self.tunnel.proxy_protocol
        preface = None if version is None else partial(_proxy_header, version, peer)
        splice = Splice(self._buffer, self._ended, preface=preface)
        self._splices.add(splice)
        splice.attach(accept(splice))
        sock = None
        if self._address is not None:
            try:
                sock, is_connected = _dial(*self._address)
            except OSError as error:
                self._refuse(splice, error.strerror or str(error))
                return
            if is_connected:
                # On loopback nothing has to be waited for: a task would cost more than the connection.
                SelectorSocketTransport(asyncio.get_running_loop(), sock, splice.protocol())
                return
        task = self._tasks.start(self._connect(splice, sock), "connect to local service")
        if sock is not None:
            _close_if_cancelled(sock, task)

    def _ended(self, splice: Splice, reason: str) -> None:
        del reason
        self._splices.discard(splice)

    async def _connect(self, splice: Splice, sock: socket.socket | None) -> None:
        target = self.tunnel.target
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._open(splice, target, sock)
        except TimeoutError:
            self._refuse(splice, "no answer in 5 s")
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not trusted: {error.verify_message}"
            self._refuse(splice, reason, "; name its CA as upstream_ca")
        except (OSError, ssl.SSLError) as error:
            self._refuse(splice, error.strerror or str(error))
        except asyncio.CancelledError:
            splice.end(Code.CANCEL, "the agent ends")
            raise

    async def _open(self, splice: Splice, target: Target, sock: socket.socket | None) -> None:
        loop = asyncio.get_running_loop()
        if sock is not None and self._address is not None:
            try:
                await loop.sock_connect(sock, self._address[1])
            except BaseException:
                sock.close()
                raise
            SelectorSocketTransport(loop, sock, splice.protocol())
            return
        name = (target.server_name or target.host) if self._tls is not None else None
        if target.unix_path is not None:
            await aiofastnet.create_unix_connection(
                loop, splice.protocol, str(target.unix_path), ssl=self._tls, server_hostname=name
            )
        else:
            await aiofastnet.create_connection(
                loop,
                splice.protocol,
                target.host,
                target.port,
                ssl=self._tls,
                server_hostname=name,
                happy_eyeballs_delay=0.25,
            )

    def _refuse(self, splice: Splice, reason: str, advice: str = "") -> None:
        """Give the stream up; `advice` is for whoever runs the agent, not for visitors."""
        splice.end(Code.REFUSED, reason)
        self._observe(UpstreamFailed(self.tunnel.name, self.tunnel.target.text, reason + advice))


def _numeric(target: Target) -> tuple[socket.AddressFamily, tuple[str, int]] | None:
    """Return the address of a target that needs no name resolution, or None."""
    if target.unix_path is not None or sys.platform == "win32":
        return None  # Proactor loops want sockets that have not begun to connect
    try:
        version = ip_address(target.host).version
    except ValueError:
        return None
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return family, (target.host, target.port)


def _dial(family: socket.AddressFamily, address: tuple[str, int]) -> tuple[socket.socket, bool]:
    """Begin to connect to a numeric address; return the socket and whether it is connected.

    `create_connection` would race addresses with a task for each, which cost more than everything
    else that a new connection needs. On loopback the connection stands before the call returns.

    Raises:
        OSError: nobody listens, or there is no way to it.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - its only argument
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            error = sock.connect_ex(address)  # asks how it went
        if error in (0, errno.EISCONN):
            return sock, True
        if error in (errno.EINPROGRESS, errno.EALREADY):
            return sock, False
        raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise


def _close_if_cancelled(sock: socket.socket, task: asyncio.Task[None] | None) -> None:
    """Close a socket that nobody will wait for, even if its task was ended before it began."""
    if task is None:
        sock.close()
        return

    def done(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            sock.close()

    task.add_done_callback(done)


def _tls_context(target: Target) -> ssl.SSLContext | None:
    if not target.tls:
        return None
    return data_path_context(target.ca_file, insecure=not target.verify)


def _proxy_header(version: str, peer: str, transport: asyncio.BaseTransport) -> bytes:
    """Return the header that tells the local service who the visitor is."""
    number: Literal[1, 2] = 1 if version == "v1" else 2
    host, _, port = peer.rpartition(":")
    local = transport.get_extra_info("peername")
    if not host or not isinstance(local, tuple):
        return proxy_protocol.serialize(number, None, None)
    return proxy_protocol.serialize(
        number,
        proxy_protocol.Endpoint(host.strip("[]"), int(port)),
        proxy_protocol.Endpoint(local[0], local[1]),
    )
