"""Socket options that every data path needs; no asyncio, as listeners are bound before that is loaded."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

NOTSENT_LOWAT_BYTES: Final = 128 * 1024
"""Unsent bytes in the kernel; more would only make small answers wait behind bulk."""
KEEPALIVE_IDLE_SECONDS: Final = 60
_NOTSENT_LOWAT: Final = getattr(
    socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_QUICKACK") else None
)
"""Python names the option since 3.12 only; 25 is Linux's number."""
_TUNED: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),) + (
    () if _NOTSENT_LOWAT is None else ((socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES),)
)
_KEPT_ALIVE: Final = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),) + (
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS),)
    if hasattr(socket, "TCP_KEEPIDLE")
    else ()
)


def tune_listener(sock: socket.socket) -> None:
    """Set what every accepted connection shall have, which inherits it: at no cost for each.

    TCP_NODELAY, TCP_NOTSENT_LOWAT where the platform has it, and keepalive, by which the kernel finds out
    about peers that vanished without a word.
    """
    _set_options(sock, _TUNED + _KEPT_ALIVE)


def tune_socket(transport: asyncio.BaseTransport) -> None:
    """Set TCP_NODELAY and TCP_NOTSENT_LOWAT for a connection that no tuned listener has accepted."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        _set_options(sock, _TUNED)


def _set_options(sock: Any, options: tuple[tuple[int, int, int], ...]) -> None:
    # Tried instead of looking at the family first, which makes an enum per connection. What fails is a
    # Unix socket, which needs none of these, or a connection that has ended already.
    try:
        for level, option, value in options:
            sock.setsockopt(level, option, value)
    except OSError:
        return
