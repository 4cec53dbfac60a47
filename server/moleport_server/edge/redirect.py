"""Redirect mode of the HTTP listener: every request is sent to https with a 308.

308 keeps method and body. One request per connection, its body is not read: there is nothing else here.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from moleport_server.edge.forwarding import is_host, split_absolute
from moleport_server.edge.pages import render
from moleport_server.edge.refusals import Refusal


class RedirectConnection(asyncio.Protocol):
    """One connection that gets one redirect.

    Args:
        https_port: the public port of https; 443 is left out of the location.
        head_bytes: the largest head.
        head_seconds: how long the head may take.
    """

    def __init__(self, https_port: int, head_bytes: int, head_seconds: float) -> None:
        self._https_port = https_port
        self._head_bytes = head_bytes
        self._head_seconds = head_seconds
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._target = b""
        self._hosts: list[bytes] = []
        self._received = 0
        self._is_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a head."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(
            self._head_seconds, self._transport.close
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the head, drop the rest."""
        if self._is_done:
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the head was complete and answered
        except httptools.HttpParserError:
            self._answer(render(Refusal.BAD_REQUEST, close=True))
            return
        if not self._is_done and self._received > self._head_bytes:
            self._answer(render(Refusal.HEAD_TOO_LARGE, close=True))

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect the host."""
        if name.lower() == b"host":
            self._hosts.append(value)

    def on_headers_complete(self) -> None:
        """Answer."""
        if self._is_done:
            return
        if len(self._hosts) != 1 or not is_host(self._hosts[0]):
            self._answer(render(Refusal.BAD_REQUEST, close=True))
            return
        host = self._hosts[0]
        name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
        parts = split_absolute(self._target)
        path = self._target if parts is None else parts[1]
        if not path.startswith(b"/"):
            path = b"/"
        port = b"" if self._https_port == 443 else b":%d" % self._https_port
        self._answer(
            b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://%b%b%b\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n" % (name, port, path)
        )

    def _answer(self, response: bytes) -> None:
        self._is_done = True
        self._transport.write(response)
        self._transport.close()
