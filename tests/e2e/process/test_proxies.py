"""Agents behind a company proxy: HTTPS_PROXY is used, NO_PROXY is respected."""

import asyncio
import contextlib

import pytest

from helpers.origins import RawOrigin, WebOrigin
from helpers.processes import Running, free_port
from helpers.site import POLL_SECONDS, Site

HOST = "shop.localhost"
STEP_SECONDS = 20.0


@pytest.fixture
async def proxy_port(site: Site) -> int:
    port = free_port()
    await site.run("proxy", "--hostname", "127.0.0.1", "--port", str(port), "--num-workers", "1")
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                break
            await asyncio.sleep(POLL_SECONDS)
    return port


def proxy_of(site: Site) -> Running:
    return next(running for running in site.running if running.name == "proxy")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_the_agent_goes_out_through_the_proxy(
    site: Site, origin: WebOrigin, proxy_port: int, variable: str
) -> None:
    await site.start_server()
    agent = await site.start_agent(
        *("http", str(origin.port), "--name", "shop"),
        environ={variable: f"http://127.0.0.1:{proxy_port}"},
    )

    assert (await site.curl(HOST, "/")).text == "hello "
    # The tunnel depends on the proxy, so it really goes through it.
    await proxy_of(site).kill()
    await agent.wait_event("disconnected", seconds=STEP_SECONDS)


async def test_no_proxy_goes_around_a_proxy_that_is_not_there(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{free_port()}", "NO_PROXY": "localhost"}

    await site.start_agent("http", str(origin.port), "--name", "shop", environ=environ)

    assert (await site.curl(HOST, "/")).text == "hello "


async def test_a_proxy_that_refuses_is_told_as_such(site: Site, origin: WebOrigin) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    await site.start_server()
    async with RawOrigin(refuse) as proxy:
        agent = await site.launch_agent(
            *("http", str(origin.port)), environ={"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
        )
        event = await agent.wait_event("disconnected")

    assert "407" in event["reason"]
