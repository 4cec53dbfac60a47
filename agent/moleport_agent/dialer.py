"""Dialling: how the agent reaches the control listener, through proxies and with its own trust.

Proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) or from the
system's settings, as every other program on the machine uses them.
"""

from __future__ import annotations

import ssl
import urllib.parse
import urllib.request
from typing import Final

from moleport_agent.settings import Secret, ServerSettings
from moleport_agent.trust import data_path_context
from moleport_wire.aio.transport import MessageReceiver
from moleport_wire.aio.websocket import connect
from moleport_wire.hoody.messages import SUBPROTOCOL_V2

CONNECT_PATH: Final = "/api/v1/tunnel/connect"
CONNECT_SECONDS: Final = 10.0
"""Name resolution, TCP, proxy, TLS and upgrade together."""


def find_proxy(url: str) -> str | None:
    """Return the proxy URL for a server URL, or None to connect directly."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy or None


class Dialer:
    """Opens connections to one server."""

    def __init__(self, server: ServerSettings) -> None:
        self._server = server
        scheme, _, rest = server.url.partition("://")
        self._url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}{CONNECT_PATH}"
        self._authorities = self._read_authorities()
        self._tls = _tls_context(server) if scheme == "https" else None

    async def dial(self, receiver: MessageReceiver, token: Secret) -> None:
        """Connect; `receiver.transport_opened` was called when this returns.

        Raises:
            UpgradeRefused: the server or a proxy answered with another status.
            OSError: no connection; ssl.SSLError when TLS failed.
            TimeoutError: it took too long.
        """
        await connect(
            receiver,
            self._url,
            subprotocol=SUBPROTOCOL_V2,
            headers={"Authorization": f"Bearer {str.__str__(token)}"},
            ssl_context=self._current_tls(),
            proxy=find_proxy(self._server.url),
            timeout_seconds=CONNECT_SECONDS,
        )

    def _current_tls(self) -> ssl.SSLContext | None:
        """Read the CA file again when it changed: a Secret follows a server that is installed anew."""
        authorities = self._read_authorities()
        if self._tls is not None and authorities not in (None, self._authorities):
            try:
                self._tls = _tls_context(self._server)
            except (OSError, ssl.SSLError):
                return self._tls  # it is being written
            self._authorities = authorities
        return self._tls

    def _read_authorities(self) -> bytes | None:
        if self._server.ca_file is None:
            return None
        try:
            return self._server.ca_file.read_bytes()
        except OSError:
            return None


def _tls_context(server: ServerSettings) -> ssl.SSLContext:
    return data_path_context(server.ca_file, insecure=server.insecure)
