"""bore: a TCP tunnel without encryption; its server waits for clients on one fixed port."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.errors import NotReady
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.ports import is_free
from moleport_bench.processes import Command

CONTROL_PORT = 7835


@dataclass(frozen=True, slots=True)
class Bore:
    """One TCP connection per public connection, dialled on demand."""

    name: str = "bore"
    mode: Mode = Mode.TCP_EACH
    leg: str = "none"
    how: str = "`bore server`, `bore local`"
    needs: Sequence[str] = ("bore",)

    def plan(self, lab: Lab) -> Plan:
        """Need no file.

        Raises:
            NotReady: the fixed port is taken, or the link is to be cut, which that port prevents.
        """
        if lab.relay_port is not None:
            raise NotReady("bore's control port is fixed, so that no relay fits in between")
        if not is_free(CONTROL_PORT):
            raise NotReady(f"port {CONTROL_PORT} is taken by another program")
        port = lab.ports.one()

        def agent(public: int) -> Command:
            words = (
                lab.origin_port,
                "--local-host",
                "127.0.0.1",
                "--to",
                "127.0.0.1",
                "--port",
                public,
            )
            return [program("bore", lab), "local", *words]

        return Plan(
            address=Address(port),
            server=[program("bore", lab), "server", "--bind-addr", "127.0.0.1"],
            agent=agent(port),
            link_port=CONTROL_PORT,
            another_agent=lambda _: agent(lab.ports.one()),
        )


PEERS = (Bore(),)
