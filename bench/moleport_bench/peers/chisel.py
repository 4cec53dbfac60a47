"""chisel: TCP over one SSH connection inside of a WebSocket."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command


@dataclass(frozen=True, slots=True)
class Chisel:
    """A reverse port forwarding."""

    name: str = "chisel"
    mode: Mode = Mode.TCP_ONE
    leg: str = "SSH"
    how: str = "`chisel server --reverse`, `chisel client R:…`"
    needs: Sequence[str] = ("chisel",)

    def plan(self, lab: Lab) -> Plan:
        """Need no file."""
        link, port = lab.ports.one(), lab.ports.one()

        def agent(public: int) -> Command:
            remote = f"R:127.0.0.1:{public}:127.0.0.1:{lab.origin_port}"
            return [program("chisel", lab), "client", f"http://127.0.0.1:{lab.link(link)}", remote]

        server = ("server", "--reverse", "--host", "127.0.0.1", "--port", link)
        return Plan(
            address=Address(port),
            server=[program("chisel", lab), *server],
            agent=agent(port),
            link_port=link,
            another_agent=lambda _: agent(lab.ports.one()),
        )


PEERS = (Chisel(),)
