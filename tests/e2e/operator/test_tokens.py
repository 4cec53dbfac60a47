"""TunnelTokens through real processes: API server, operator, tunnel server, agent and curl."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from helpers.processes import Running
from moleport_operator.credentials import is_well_formed

pytestmark = pytest.mark.asyncio(loop_scope="session")


def secret_values(body: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in body["data"].items()}


async def test_applying_a_token_gives_a_secret_within_two_seconds(cluster: Any) -> None:
    operator: Running = await cluster.start_operator()
    await operator.wait_line("resources listed")
    await cluster.until(lambda: True, "start")
    cluster.apply("TunnelToken", "warm")
    await cluster.ready("warm")

    began = time.monotonic()
    cluster.apply("TunnelToken", "shop", spec={"access": {"http": {"hostnames": ["shop"]}}})
    await cluster.ready("shop")
    took = time.monotonic() - began

    secret = cluster.get("secret", "shop")
    values = secret_values(secret)
    assert is_well_formed(values["token"])
    assert values["url"] == f"https://shop.localhost:{cluster.site.https_port}"
    assert took < 2.0 + 1.0  # kubectl's own starts are in it
    assert values["token"] not in operator.output
