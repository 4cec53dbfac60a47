"""Stock rustunnel clients, as a double that shares no code with the server plays them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from helpers.doubles.process import start_rustunnel
from helpers.origins import WebOrigin
from helpers.site import Site

HOST = "shop.localhost"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("release", ["0.3.6", "0.4.10", "0.7.8", "0.8.2"])
async def test_a_page_comes_through_an_http_tunnel(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server()
    client = await start_rustunnel(
        stack, site, f"https:127.0.0.1:{origin.port}:shop", options=("--release", release)
    )
    registered = await client.wait_event("registered")

    page = await site.curl(HOST, "/?a=1", tls=True)

    assert (page.exit_code, page.text) == (0, "hello a=1")
    assert registered["public_url"] == f"https://{HOST}:{site.https_port}"
    assert client.violations == []
