"""The listeners: which socket leads to which protocol, agents' first.

Visitors are held until their agents are back, so the agents' doors open before theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from moleport_server.access.admission import PreAuthGate
from moleport_server.app.data_plane import preamble_of
from moleport_server.app.doorkeeping import Doorkeeping
from moleport_server.config.settings import ServerSettings
from moleport_server.config.values import Endpoint
from moleport_server.edge.accepting import Acceptor
from moleport_server.edge.front import Front
from moleport_server.edge.http import HttpEdge
from moleport_server.edge.plain_listener import MakeProtocol, ProxyPreamble, listen
from moleport_server.edge.redirect import RedirectConnection
from moleport_server.edge.tls import CertificateStore
from moleport_server.edge.tls_listener import Arrival, TlsListener
from moleport_server.listening import BoundListeners
from moleport_server.metrics.instruments import EdgeMetrics

MakeTlsProtocol = Callable[[Arrival], asyncio.Protocol | asyncio.BufferedProtocol]


class Listeners:
    """What listens, apart from the ports of single tunnels.

    Args:
        settings: of the addresses and of what is behind them.
        bound: sockets that listen already; what is missing is bound when its turn comes.
        certificates: of `edge` and `control`; empty without TLS.
        metrics: counts handshakes that failed.
        stack: closes every listener.
    """

    def __init__(
        self,
        settings: ServerSettings,
        bound: BoundListeners,
        *,
        certificates: Mapping[str, CertificateStore],
        metrics: EdgeMetrics,
        stack: AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._bound = bound
        self._certificates = certificates
        self._metrics = metrics
        self._stack = stack
        self._plain: list[Acceptor] = []
        self._tls: list[TlsListener] = []

    async def open(self, front: Front, edge: HttpEdge, doorkeeping: Doorkeeping) -> None:
        """Open the public listeners.

        Raises:
            OSError: an address could not be listened on.
        """
        await self._open_control(front, doorkeeping.strangers)
        await self._open_edge(front, edge, doorkeeping.handshakes)

    def open_probes(self, make: Callable[[], asyncio.Protocol]) -> None:
        """Open the listener of Prometheus and of probes, if there is one.

        Raises:
            OSError: its address could not be listened on.
        """
        endpoint = self._settings.listen.metrics
        if endpoint is not None:
            self._listen(endpoint, lambda _: make(), preamble=None)

    def stop(self) -> None:
        """Accept nothing new; what was accepted goes on."""
        for server in self._plain:
            server.close()
        for listener in self._tls:
            listener.stop()

    async def _open_control(self, front: Front, strangers: PreAuthGate) -> None:
        addresses = self._settings.listen

        def make(arrival: Arrival) -> asyncio.Protocol:
            address = (arrival.address, arrival.port)
            return front.connection(address, leave_gate=arrival.leave_gate)

        for name, endpoint, is_tls in (
            ("control", addresses.control, addresses.control_tls),
            ("api", addresses.api, addresses.api_tls),
        ):
            if endpoint is None:
                continue
            preamble = preamble_of(self._settings, name)
            if is_tls:
                store = self._certificates["control"]
                await self._listen_tls(name, endpoint, store, make, strangers, preamble)
            else:
                self._listen(endpoint, front.connection, preamble=preamble)

    async def _open_edge(self, front: Front, edge: HttpEdge, handshakes: PreAuthGate) -> None:
        settings = self._settings
        http, https = settings.listen.edge_http, settings.listen.edge_https
        control_host = settings.control_host

        def make_secure(arrival: Arrival) -> asyncio.Protocol | asyncio.BufferedProtocol:
            if arrival.server_name == control_host:
                return front.connection((arrival.address, arrival.port))
            return edge.protocol(address=(arrival.address, arrival.port), is_tls=True)

        if https is not None and "edge" in self._certificates:
            preamble = preamble_of(settings, "edge_https")
            store = self._certificates["edge"]
            await self._listen_tls("edge-https", https, store, make_secure, handshakes, preamble)
        if http is None:
            return
        make: MakeProtocol
        if settings.listen.edge_http_mode == "redirect":
            https_port = settings.public.https_port or (0 if https is None else https.port)
            make = lambda _: RedirectConnection(  # noqa: E731 - one of two factories
                https_port, settings.limits.head_bytes, settings.limits.header_read_seconds
            )
        else:
            make = lambda address: edge.protocol(address=address)  # noqa: E731
        self._listen(http, make, preamble=preamble_of(settings, "edge_http"))

    def _listen(
        self, endpoint: Endpoint, make: MakeProtocol, *, preamble: ProxyPreamble | None
    ) -> None:
        server = listen(self._bound.take(endpoint), make, preamble=preamble)
        self._plain.append(server)
        self._stack.callback(server.close)

    async def _listen_tls(
        self,
        name: str,
        endpoint: Endpoint,
        certificates: CertificateStore,
        make: MakeTlsProtocol,
        gate: PreAuthGate,
        preamble: ProxyPreamble | None,
    ) -> None:
        listener = TlsListener(
            self._bound.take(endpoint),
            certificates,
            make_protocol=make,
            gate=gate,
            handshake_seconds=self._settings.limits.tls_handshake_seconds,
            preamble=preamble,
            note_failure=lambda _: self._metrics.tls_failures.labels(name).inc(),
        )
        await self._stack.enter_async_context(listener)
        self._tls.append(listener)
