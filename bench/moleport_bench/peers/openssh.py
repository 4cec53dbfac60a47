"""OpenSSH: `ssh -R` to an sshd of our own on loopback, with its own keys and configuration, as this user."""

import getpass
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command

_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/agent_key.pub
PidFile {directory}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding remote
GatewayPorts no
Compression no
MaxStartups 400
LogLevel ERROR
"""
_PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Where sshd wants an empty directory when root starts it; its Debian unit makes it."""


@dataclass(frozen=True, slots=True)
class OpenSsh:
    """Remote forwarding over one SSH connection."""

    name: str = "ssh"
    mode: Mode = Mode.TCP_ONE
    leg: str = "SSH"
    how: str = "`ssh -N -R` to an sshd on loopback, default ciphers, no compression"
    needs: Sequence[str] = ("sshd", "ssh", "ssh-keygen")

    def plan(self, lab: Lab) -> Plan:
        """Make keys and write sshd_config."""
        for name in ("host_key", "agent_key"):
            command = [program("ssh-keygen", lab), "-q", "-t", "ed25519", "-N", "", "-f"]
            subprocess.run([*command, str(lab.directory / name)], check=True, timeout=30)
        port, link = lab.ports.one(), lab.ports.one()
        config = lab.write("sshd_config", _SSHD.format(port=link, directory=lab.directory))
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)

        def agent(public: int) -> Command:
            options = {
                "UserKnownHostsFile": "/dev/null",
                "StrictHostKeyChecking": "no",
                "IdentitiesOnly": "yes",
                "ExitOnForwardFailure": "yes",
                "LogLevel": "ERROR",
            }
            forward = f"127.0.0.1:{public}:127.0.0.1:{lab.origin_port}"
            return [
                *(program("ssh", lab), "-N", "-F", "none", "-p", lab.link(link)),
                *("-i", lab.directory / "agent_key", "-R", forward),
                *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
                f"{getpass.getuser()}@127.0.0.1",
            ]

        return Plan(
            address=Address(port),
            server=[program("sshd", lab), "-D", "-e", "-f", config],
            agent=agent(port),
            link_port=link,
            another_agent=lambda _: agent(lab.ports.one()),
        )


PEERS = (OpenSsh(),)
