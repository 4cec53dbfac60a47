"""Who comes while the server still reads its libraries: waits for it, and is not refused."""

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from helpers.origins import RawOrigin, WebOrigin, echo
from helpers.site import Site
from helpers.visitor import Visitor

NOT_OURS = "127.0.0.2"
"""From here no connection can meet itself on a port that nobody listens on yet."""
SECONDS = 30.0
GATE = """
import sys, time
from pathlib import Path

class Gate:
    def find_spec(self, name, path=None, target=None):
        end = time.monotonic() + 60
        while name == {module!r} and not Path({gate!r}).exists() and time.monotonic() < end:
            time.sleep(0.01)

sys.meta_path.insert(0, Gate())
"""


def make_gate(site: Site, module: str) -> tuple[Path, str]:
    """Return a file that the import of a module waits for, and the path of what makes it wait."""
    directory = site.directory / "gate"
    directory.mkdir()
    gate = directory / "open"
    (directory / "sitecustomize.py").write_text(GATE.format(module=module, gate=str(gate)))
    return gate, str(directory)


async def visit(stack: AsyncExitStack, port: int) -> Visitor:
    """Connect as soon as the port listens."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await stack.enter_async_context(Visitor(port, local_host=NOT_OURS))
            await asyncio.sleep(0.01)


async def test_visitors_of_all_kinds_wait_for_a_killed_server_that_starts_slowly(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    service = await stack.enter_async_context(RawOrigin(echo))
    path = site.directory / "moleport.yaml"
    path.write_text(
        "tunnels:\n"
        f"  shop: {{protocol: http, target: '{origin.port}', name: shop}}\n"
        f"  echo: {{protocol: tcp, target: '{service.port}', port: {site.tcp_port + 7}}}\n"
    )
    await site.start_agent("start", "-f", path, tunnels=2)
    await site.server.kill()
    gate, path_of_gate = make_gate(site, "moleport_server.app.server")

    server = await site.launch_server(PYTHONPATH=path_of_gate)
    caller, http, tcp = [
        await visit(stack, port) for port in (site.api_port, site.http_port, site.tcp_port + 7)
    ]
    caller.send(b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")
    http.send(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")
    tcp.send(b"early")
    assert "ready" not in server.output
    gate.touch()

    assert (await http.answer()).body == b"hello "
    assert await tcp.read(5) == b"early"
    assert (await caller.answer()).status == 200
    await site.wait_ready()


async def test_visitors_and_agents_are_served_before_the_rest_api_is_read(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    agent = await site.start_agent("http", str(origin.port), "--name", "shop")
    seen = len(agent.lines)
    await site.server.kill()
    gate, path_of_gate = make_gate(site, "moleport_server.app.rest_api")

    await site.launch_server(PYTHONPATH=path_of_gate)
    await agent.wait_opened(since=seen)
    caller = await visit(stack, site.api_port)
    caller.send(b"GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n")

    assert (await site.curl("shop.localhost", "/")).text == "hello "
    assert not gate.exists()
    gate.touch()
    assert (await caller.answer()).status == 200
    await site.wait_ready()


async def test_a_server_that_is_told_to_stop_while_it_starts_ends_cleanly(site: Site) -> None:
    await site.start_server()
    await site.server.kill()
    gate, path_of_gate = make_gate(site, "moleport_server.app.rest_api")
    server = await site.launch_server(PYTHONPATH=path_of_gate)
    async with AsyncExitStack() as stack:
        http = await visit(stack, site.http_port)
        http.send(b"GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n")
        assert (await http.answer()).status == 404

    server.send_signal(signal.SIGTERM)
    gate.touch()

    assert await server.wait_exit() == 0
