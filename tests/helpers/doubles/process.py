"""Doubles of foreign clients as child processes of a test.

    async with AsyncExitStack() as stack:
        client = await start_rustunnel(stack, site, f"http:127.0.0.1:{origin.port}:demo")
        registered = await client.wait_event("registered")
        client.command("data", "drop")

`Double` is an `Agent` whose stdin takes commands; see the modules of the doubles for events and
commands.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from helpers.doubles.hoody_frames import PATH
from helpers.processes import PATIENCE_SECONDS, Agent
from helpers.site import Site
from moleport_bench.installation import cache_directory, is_built

RUST_CLIENT, RUST_PEER = "rustunnel-client-double", "moleport-rustunnel"
TESTS_DIRECTORY = Path(__file__).parents[2]


class Double(Agent):
    """A running double."""

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str | Path], environ: Mapping[str, str]
    ) -> Self:
        _, running = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(name),
            *command,
            stdin=asyncio.subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
        )
        return running

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd != 0:  # stdin says nothing
            super().pipe_connection_lost(fd, exc)

    def command(self, *words: str | int) -> None:
        """Tell it to do something; `helpers.doubles.*_client` list what."""
        stdin = self._transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        stdin.write((" ".join(str(word) for word in words) + "\n").encode())

    async def ask(self, *words: str | int, answer: str) -> dict[str, Any]:
        """Give a command and return the event that answers it."""
        since = len(self.lines)
        self.command(*words)
        return await self.wait_event(answer, since=since)

    async def wait_events(
        self, kind: str, count: int, *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait until so many events of a kind have come, and return them."""
        await self.wait_until(
            lambda: len(self.events(kind, since=since)) >= count or self.exit_code is not None,
            f"{count} times {kind!r}",
            seconds=seconds,
        )
        events = self.events(kind, since=since)
        assert len(events) >= count, str(self)
        return events

    @property
    def violations(self) -> list[str]:
        """What the server did and a server must not do, as the double saw it."""
        return [event["text"] for event in self.events("violation")]


async def start_double(
    stack: AsyncExitStack, module: str, *arguments: str | Path, name: str | None = None
) -> Double:
    """Run one of the doubles by its module's name; it is killed when `stack` closes."""
    double = await Double.start(
        name or module,
        (sys.executable, "-m", f"helpers.doubles.{module}", *arguments),
        {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(TESTS_DIRECTORY)},
    )
    stack.push_async_callback(double.aclose)
    return double


async def start_rustunnel(
    stack: AsyncExitStack, site: Site, *tunnels: str, options: Sequence[str | Path] = ()
) -> Double:
    """Run a rustunnel client against a site's server, as its admin unless `options` say otherwise.

    A tunnel reads `PROTOCOL:HOST:PORT[:SUBDOMAIN]`. Returns at once: wait for `registered`, or for
    `attached` if requests are to be served.
    """
    return await start_double(
        stack,
        "rustunnel_client",
        *("--server", f"localhost:{site.control_port}", "--connect", "127.0.0.1"),
        *("--ca-file", site.ca_file, "--token-file", site.data_dir / "admin-token"),
        *(part for tunnel in tunnels for part in ("--tunnel", tunnel)),
        *options,
        name=f"rustunnel {len(site.running)}",
    )


async def start_rust_rustunnel(
    stack: AsyncExitStack, site: Site, protocol: str, subdomain: str, local_port: int
) -> Double:
    """Run the rustunnel client in Rust, whose libraries are those of the stock client, as the admin.

    It is skipped with the reason where nobody has built it: that takes cargo, and longer than a test.
    Returns at once: wait for `tunnel_opened`.
    """
    if not is_built(RUST_CLIENT, cache_directory()):
        pytest.skip(f"{RUST_CLIENT} is not built: make bench-programs ARGS='--peers {RUST_PEER}'")
    double = await Double.start(
        f"{RUST_CLIENT} {len(site.running)}",
        (
            *(cache_directory() / "bin" / RUST_CLIENT, f"localhost:{site.control_port}"),
            *(protocol, subdomain, f"127.0.0.1:{local_port}"),
            *(site.data_dir / "admin-token", site.ca_file),
        ),
        {},
    )
    stack.push_async_callback(double.aclose)
    return double


async def start_hoody(
    stack: AsyncExitStack, site: Site, *options: str | Path, host: str = "localhost"
) -> Double:
    """Run a hoody-tunnel driver against a site's control listener, as the admin.

    `options` say what it exposes and pulls (`--expose 0:127.0.0.1:8080`), and `--generation`,
    `--sockets` and the rest. Returns at once: wait for `bound`, or for `connected`.
    """
    return await start_double(
        stack,
        "hoody_client",
        *("--url", f"wss://{host}:{site.control_port}{PATH}", "--connect", "127.0.0.1"),
        *("--ca-file", site.ca_file, "--token-file", site.data_dir / "admin-token"),
        *options,
        name=f"hoody {len(site.running)}",
    )
