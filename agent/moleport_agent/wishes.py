"""What an agent asks for: the BIND of each tunnel, with the name or port that it had before.

A tunnel that asks for no name of its own gets one drawn; whoever knows it wants it to stay. So what a
tunnel was given is remembered, over reconnects here and over restarts in a file, and wished for again.
"""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import urlsplit

from moleport_agent.name_memory import NameMemory
from moleport_agent.settings import ContainerPort, TunnelSettings
from moleport_wire.hoody import messages
from moleport_wire.passwords import hash_password


class Wishes:
    """Makes requests for addresses, and notes which were given.

    Args:
        server: base URL of the server; names of one server mean nothing to another.
        memory: remembers names over restarts.
    """

    def __init__(self, server: str, memory: NameMemory) -> None:
        self._server = server
        self._memory = memory
        self._names: dict[str, str] = {}
        self._container_ports: dict[str, int] = {}
        self._hashes: dict[str, tuple[messages.BasicUser, ...]] = {}

    def note_given(self, tunnel: TunnelSettings, public_url: str, container_port: int) -> None:
        """Remember what a tunnel has now."""
        name = tunnel.name
        if tunnel.container is not None:
            # A port that was drawn once is asked for again.
            self._container_ports[name] = container_port
            return
        parts = urlsplit(public_url)
        if tunnel.protocol == "http" and parts.hostname:
            self._names[name] = parts.hostname
        elif parts.port is not None:
            self._names[name] = str(parts.port)
        is_drawn = tunnel.hostname is None and tunnel.subdomain is None and tunnel.port is None
        if is_drawn and name in self._names:
            self._memory.remember(self._memory_key(tunnel), self._names[name])

    def _memory_key(self, tunnel: TunnelSettings) -> str:
        return f"{self._server} {tunnel.protocol} {tunnel.name} {tunnel.target.text}"

    async def request(self, tunnel: TunnelSettings) -> messages.Bind:
        """Return the BIND of a tunnel; hashing its passwords may take a moment."""
        if tunnel.container is not None:
            return await self._container_request(tunnel, tunnel.container)
        last = self._names.get(tunnel.name) or self._memory.recall(self._memory_key(tunnel))
        hostname, port = tunnel.hostname, tunnel.port
        is_wish = False
        if tunnel.protocol == "http" and hostname is None and tunnel.subdomain is None:
            hostname, is_wish = last, last is not None
        elif tunnel.protocol == "tcp" and port is None and last is not None and last.isdigit():
            port, is_wish = int(last), True
        host_header = tunnel.host_header
        if host_header == "rewrite":
            host_header = _authority(tunnel)
        return messages.Bind(
            client_bind_ref=0,
            kind=tunnel.protocol,
            label=tunnel.name,
            hostname=hostname,
            subdomain=tunnel.subdomain,
            port=port,
            is_wish=is_wish,
            basic_auth=await self._basic_users(tunnel),
            allowed_cidrs=tunnel.allow_cidrs,
            host_header=None if host_header == "preserve" else host_header,
        )

    async def _container_request(
        self, tunnel: TunnelSettings, container: ContainerPort
    ) -> messages.Bind:
        host_header = _authority(tunnel) if tunnel.host_header == "rewrite" else tunnel.host_header
        return messages.Bind(
            client_bind_ref=0,
            kind=tunnel.protocol,
            mode=container.mode,
            is_container=True,
            container_port=container.port or self._container_ports.get(tunnel.name, 0),
            host=container.host,
            # Once: two agents that both want it must not take it from each other for ever.
            takeover=container.takes_over and tunnel.name not in self._container_ports,
            label=tunnel.name,
            subdomain=tunnel.subdomain,
            basic_auth=await self._basic_users(tunnel),
            allowed_cidrs=tunnel.allow_cidrs,
            host_header=None if host_header == "preserve" else host_header,
        )

    async def _basic_users(self, tunnel: TunnelSettings) -> tuple[messages.BasicUser, ...] | None:
        """Hash the passwords once; they never leave this process."""
        if tunnel.basic_auth is None:
            return None
        users = self._hashes.get(tunnel.name)
        if users is None:
            users = tuple(
                [
                    messages.BasicUser(
                        user=user,
                        password_hash=await asyncio.to_thread(
                            hash_password, str.__str__(password), secrets.token_bytes(16)
                        ),
                    )
                    for user, password in tunnel.basic_auth
                ]
            )
            self._hashes[tunnel.name] = users
        return users


def _authority(tunnel: TunnelSettings) -> str:
    target = tunnel.target
    if target.unix_path is not None:
        return "localhost"
    host = f"[{target.host}]" if ":" in target.host else target.host
    default = 443 if target.tls else 80
    return host if target.port == default else f"{host}:{target.port}"
