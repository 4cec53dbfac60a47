"""What every data path does with sockets: reading, ending, and naming their peers."""

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Any, Final

READ_BYTES: Final = 64 * 1024
"""One read of a socket: exactly one full DATA frame."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ReadBuffer:
    """The buffer that all connections of one owner read into, since only one reads at a time.

    Reading into a fresh object per read costs a large allocation that is shrunk at once, which showed
    as a sixth of the agent's CPU time; and idle connections hold no buffer at all this way. Proactor
    loops (Windows) read in the background, so there every read gets its own.
    """

    __slots__ = ("_view",)

    def __init__(self) -> None:
        self._view = memoryview(bytearray(READ_BYTES))

    def lend(self) -> memoryview:
        """Return the buffer for the next read; its bytes are taken before anybody else reads."""
        if sys.platform == "win32":
            self._view = memoryview(bytearray(READ_BYTES))
        return self._view

    def take(self, count: int) -> bytes:
        """Return a copy of what was read."""
        return bytes(self._view[:count])


def format_peer(peername: Any) -> str:
    """Return a socket's peer name as `ip:port`, IPv6 in brackets; empty if it has none."""
    if not isinstance(peername, tuple) or len(peername) < 2:
        return ""
    host, port = peername[0], peername[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def abort_with_reset(transport: asyncio.Transport) -> None:
    """Drop a connection so that its peer sees an error and never an orderly end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # the socket is gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def silence(transport: asyncio.BaseTransport) -> None:
    """Let nothing that is still written reach the peer; the transport is to be aborted next."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return
    # The loop's stand-in for the socket has no `shutdown` of its own.
    with (
        contextlib.suppress(OSError),
        socket.fromfd(sock.fileno(), sock.family, sock.type) as twin,
    ):
        twin.shutdown(socket.SHUT_RDWR)


def half_close(transport: asyncio.Transport) -> bool:
    """End our direction behind everything written; False if this transport cannot (TLS)."""
    if transport.is_closing() or not transport.can_write_eof():
        return False
    try:
        transport.write_eof()
    except OSError:
        transport.abort()  # the peer is gone already
    return True


def resume_reading(transport: asyncio.Transport) -> None:
    """Read on, also what TLS had taken from the socket before the pause.

    aiofastnet 1.2 asks the socket first and, when that has nothing more, leaves what it had read already:
    an upload that was paused at its end would never be complete.
    """
    transport.resume_reading()
    read_what_is_there = getattr(transport, "_retry_ssl_read", None)
    if read_what_is_there is not None:
        asyncio.get_running_loop().call_soon(read_what_is_there)


def settle_reading(transport: asyncio.Transport) -> None:
    """Let a pause or an abort by `connection_made` stand; call it there, before anything else.

    aiofastnet 1.2 starts to read after `connection_made` whatever that did. A paused transport would
    spin on bytes that it does not take; an aborted one would leave its reader behind, and the next
    connection that gets the same descriptor would never hear a byte.
    """
    # TLS transports read from their handshake on, and proactor loops (Windows) have no readers.
    if transport.get_extra_info("sslcontext") is None and sys.platform != "win32":
        asyncio.get_running_loop().call_soon(_stop_unwanted_reading, transport)


def _stop_unwanted_reading(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and not transport.is_reading():
        asyncio.get_running_loop().remove_reader(sock.fileno())
