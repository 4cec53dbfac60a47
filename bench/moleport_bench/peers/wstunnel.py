"""wstunnel: a WebSocket per public connection, with TLS (its own certificate) and without."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command


@dataclass(frozen=True, slots=True)
class Wstunnel:
    """A reverse tunnel of one port."""

    name: str
    scheme: str
    mode: Mode = Mode.TCP_EACH
    needs: Sequence[str] = ("wstunnel",)

    @property
    def leg(self) -> str:
        """TLS with wss."""
        return "TLS" if self.scheme == "wss" else "none"

    @property
    def how(self) -> str:
        """The two commands."""
        return f"`wstunnel server {self.scheme}://…`, `wstunnel client -R tcp://…`"

    def plan(self, lab: Lab) -> Plan:
        """Need no file."""
        link, port = lab.ports.one(), lab.ports.one()

        def agent(public: int) -> Command:
            remote = f"tcp://127.0.0.1:{public}:127.0.0.1:{lab.origin_port}"
            url = f"{self.scheme}://127.0.0.1:{lab.link(link)}"
            return [program("wstunnel", lab), "client", "-R", remote, url]

        return Plan(
            address=Address(port),
            server=[program("wstunnel", lab), "server", f"{self.scheme}://127.0.0.1:{link}"],
            agent=agent(port),
            link_port=link,
            another_agent=lambda _: agent(lab.ports.one()),
        )


PEERS = (Wstunnel("wstunnel-ws", "ws"), Wstunnel("wstunnel-wss", "wss"))
