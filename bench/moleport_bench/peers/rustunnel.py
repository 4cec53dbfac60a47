"""moleport's server with a client of another make: what stock rustunnel clients get.

The client is a double in Rust (`bench/rustunnel_client`), written from the protocol alone with the
libraries that the stock client uses. Nagle's algorithm stays on in it, as there: acknowledgements that
the server delays would show as a p99 of 40 ms.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.peers.moleport import Moleport, tunnel_host

CLIENT = "rustunnel-client-double"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rustunnel:
    """The server of `moleport-http` with the other client."""

    name: str
    how: str
    mode: Mode = Mode.HTTP
    leg: str = "TLS"
    needs: Sequence[str] = ("moleport", "moleport-server", CLIENT)
    server: Moleport = field(default_factory=lambda: Moleport(name="moleport-http", how=""))

    def plan(self, lab: Lab) -> Plan:
        """Take the server's plan and put the other client in."""
        plan = self.server.plan(lab)
        link = 0 if plan.link_port is None else lab.link(plan.link_port)
        return dataclasses.replace(
            plan,
            agent=[
                program(CLIENT, lab),
                f"localhost:{link}",
                "http",
                tunnel_host(0).split(".")[0],
                f"127.0.0.1:{lab.origin_port}",
                lab.directory / "admin-token",
                lab.directory / "data" / "tls" / "ca.pem",
            ],
            fleet=None,
        )


PEERS = (
    Rustunnel(
        name="moleport-rustunnel",
        how="`moleport-server dev` with a double of the stock rustunnel client in Rust; capture on",
    ),
)
