"""A tunnel server with its agents and visitors on loopback, in one temporary directory.

`Site` starts and restarts them; ports, data and profile stay the same between two starts. Visitors
connect to 127.0.0.1 with a Host header and SNI, because `*.localhost` is not resolved everywhere.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from helpers.processes import PATIENCE_SECONDS, Agent, Running, Server, command, port_block

_Process = TypeVar("_Process", bound=Running)

POLL_SECONDS = 0.02
CURL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Curl:
    """How a curl ended."""

    exit_code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Site:
    """One server at a time, and any number of agents and programs beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.config_dir = directory / "config"
        self.running: list[Running] = []
        self.server: Server
        self._stack = AsyncExitStack()
        self.base = self._stack.enter_context(port_block())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # Where things are

    http_port = property(lambda self: self.base)
    https_port = property(lambda self: self.base + 1)
    control_port = property(lambda self: self.base + 2)
    api_port = property(lambda self: self.base + 3)
    metrics_port = property(lambda self: self.base + 4)
    tcp_port = property(lambda self: self.base + 100)

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    @property
    def admin_token(self) -> str:
        return (self.data_dir / "admin-token").read_text().strip()

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8",
            "MOLEPORT_CONFIG_DIR": str(self.config_dir),
        }

    def tls(self) -> ssl.SSLContext:
        """Return the trust of a visitor who knows the server's authority."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    # Processes

    async def run(self, name: str, *arguments: str | Path, **environ: str) -> Running:
        """Start one of the commands and leave it alone."""
        running = await Running.start(
            name, (command(name), *arguments), {**self.environ, **environ}
        )
        return self._own(running)

    async def start_server(self, *flags: str, program: Path | None = None) -> Server:
        """Start the server and wait until it is ready; `flags` are `section.key=value`."""
        server = await self.launch_server(*flags, program=program)
        await self.wait_ready()
        return server

    async def launch_server(
        self, *flags: str, program: Path | None = None, **environ: str
    ) -> Server:
        """Start the server without waiting."""
        options = [part for flag in flags for part in ("--set", flag)]
        self.server = self._own(
            await Server.start(
                "the server",
                (
                    program or command("moleport-server"),
                    *("dev", "--data-dir", self.data_dir, "--port-base", str(self.base)),
                    *options,
                ),
                {**self.environ, **environ},
            )
        )
        return self.server

    async def wait_ready(self) -> None:
        """Wait until /readyz says yes."""
        async with aiohttp.ClientSession() as visitor:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while await self.readiness(visitor) != 200:
                        assert self.server.exit_code is None, str(self.server)
                        await asyncio.sleep(POLL_SECONDS)
            except TimeoutError:
                raise AssertionError(f"not ready\n{self.server}") from None

    async def readiness(self, visitor: aiohttp.ClientSession) -> int | None:
        """Return the status of /readyz, None when nobody answers."""
        try:
            async with visitor.get(f"http://127.0.0.1:{self.metrics_port}/readyz") as answer:
                return answer.status
        except aiohttp.ClientError:
            return None

    async def start_agent(
        self, *arguments: str | Path, tunnels: int = 1, environ: Mapping[str, str] | None = None
    ) -> Agent:
        """Start `moleport ARGUMENTS --json` and wait until its tunnels are open."""
        agent = await self.launch_agent(*arguments, environ=environ)
        await agent.wait_opened(tunnels)
        return agent

    async def launch_agent(
        self, *arguments: str | Path, environ: Mapping[str, str] | None = None
    ) -> Agent:
        """Start an agent without waiting."""
        return self._own(
            await Agent.start(
                f"agent {len(self.running)}",
                (command("moleport"), *arguments, "--json"),
                {**self.environ, **(environ or {})},
            )
        )

    def _own(self, running: _Process) -> _Process:
        self.running.append(running)
        self._stack.push_async_callback(running.aclose)
        return running

    # Visitors

    async def curl(self, host: str, path: str, *options: str | Path, tls: bool = False) -> Curl:
        """Visit a tunnel with curl."""
        scheme, port = ("https", self.https_port) if tls else ("http", self.http_port)
        trust = ("--cacert", self.ca_file) if tls else ()
        return await self.run_curl(
            *("--resolve", f"{host}:{port}:127.0.0.1", *trust, *options),
            f"{scheme}://{host}:{port}{path}",
        )

    async def curl_api(
        self, method: str, path: str, *options: str | Path, token: str | None = None
    ) -> Curl:
        """Call the REST API with curl; as the admin unless a token is given."""
        # Credentials come from a file, as a careful user does it: arguments are visible to all.
        header = self.directory / "authorization"
        header.write_text(f"Authorization: Bearer {token or self.admin_token}\n")
        return await self.run_curl(
            *("-X", method, "-H", f"@{header}", *options),
            f"http://127.0.0.1:{self.api_port}{path}",
        )

    async def run_curl(self, *arguments: str | Path) -> Curl:
        """Run curl with a deadline of its own."""
        process = await asyncio.create_subprocess_exec(
            "curl",
            *("--silent", "--show-error", "--noproxy", "*", "--max-time", str(CURL_SECONDS)),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environ,
        )
        async with asyncio.timeout(CURL_SECONDS + PATIENCE_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Curl(process.returncode, out, err.decode())

    async def api(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """Call the REST API and return its JSON; the call has to succeed."""
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        url = f"http://127.0.0.1:{self.api_port}{path}"
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            aiohttp.ClientSession(headers=headers) as caller,
            caller.request(method, url, json=body) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def metrics(self) -> str:
        """Return what Prometheus would scrape."""
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            aiohttp.ClientSession() as caller,
            caller.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer,
        ):
            return await answer.text()
