"""Stock hoody-tunnel clients expose HTTP services: by public name and by container port.

The client is a double that shares no code with the server (`helpers.doubles`) and notes every rule of
the protocol that the server breaks.
"""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest
from websockets.asyncio.client import connect

from helpers.doubles.process import Double, start_hoody
from helpers.origins import PATTERN, WebOrigin, pattern_hash
from helpers.site import Curl, Site
from helpers.visits import Visitor

STEP_SECONDS = 10.0

CLIENTS = [
    pytest.param(("--generation", "old"), id="old v1"),
    pytest.param(("--generation", "old", "--sockets", "4"), id="old v2"),
    pytest.param(("--generation", "new"), id="new v1"),
    pytest.param(("--generation", "new", "--sockets", "16"), id="new v2"),
]
NEW = ("--generation", "new", "--sockets", "4")


class Shop:
    """An exposed service and where it is."""

    def __init__(self, site: Site, client: Double, bound: dict[str, str]) -> None:
        self.site = site
        self.client = client
        self.port = int(bound["container_port"])
        self.host = urlsplit(bound["public_url"]).hostname or ""

    async def curl(self, path: str, *options: str) -> Curl:
        return await self.site.run_curl(*options, f"http://127.0.0.1:{self.port}{path}")


async def open_shop(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str, port: int = 0
) -> Shop:
    await site.start_server()
    client = await start_hoody(
        stack, site, "--expose", f"{port}:127.0.0.1:{origin.port}", *options
    )
    return Shop(site, client, await client.wait_event("bound"))


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_page_comes_by_container_port_and_by_name(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    shop = await open_shop(stack, site, origin, *options)

    pages = [
        await shop.curl("/?a=1"),
        await site.curl(shop.host, "/?a=1"),
        await site.curl(shop.host, "/?a=1", tls=True),
    ]

    assert [page.text for page in pages] == ["hello a=1"] * 3
    assert shop.host == f"port-{shop.port}.localhost"
    assert 20_000 <= shop.port <= 65_534
    assert shop.client.violations == []
