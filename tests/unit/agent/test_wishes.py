from pathlib import Path
from typing import Any

import pytest

from moleport_agent.name_memory import NameMemory
from moleport_agent.settings import ContainerPort, Secret, Target, TunnelSettings
from moleport_agent.wishes import Wishes

SERVER = "https://tunnels.test"
TARGET = Target(text="3000", port=3000)


def tunnel(protocol: str = "http", **members: Any) -> TunnelSettings:
    values: dict[str, Any] = {"name": "shop", "protocol": protocol, "target": TARGET}
    return TunnelSettings(**(values | members))


def wishes(path: Path | None = None) -> Wishes:
    return Wishes(SERVER, NameMemory(path))


async def test_a_name_of_its_own_is_asked_for_as_it_is() -> None:
    request = await wishes().request(tunnel(subdomain="shop"))

    assert (request.subdomain, request.hostname, request.is_wish) == ("shop", None, False)
    assert not request.is_container


@pytest.mark.parametrize(
    ("protocol", "url", "expected"),
    [
        ("http", "https://quick-otter.tunnels.test:8443", ("quick-otter.tunnels.test", None)),
        ("tcp", "tcp://tunnels.test:20003", (None, 20003)),
    ],
)
async def test_what_was_drawn_is_wished_for_again(
    tmp_path: Path, protocol: str, url: str, expected: tuple[str | None, int | None]
) -> None:
    shop = tunnel(protocol)
    first = wishes(tmp_path / "names.json")
    first.note_given(shop, url, 0)

    for later in (first, wishes(tmp_path / "names.json")):
        request = await later.request(shop)
        assert (request.hostname, request.port) == expected
        assert request.is_wish


async def test_a_container_port_that_was_drawn_is_asked_for_again() -> None:
    shop = tunnel(container=ContainerPort(mode="expose"))
    asked = wishes()
    before = await asked.request(shop)
    asked.note_given(shop, "https://port-30001.tunnels.test", 30_001)

    after = await asked.request(shop)

    assert (before.is_container, before.container_port) == (True, 0)
    assert (after.is_container, after.container_port, after.hostname) == (True, 30_001, None)


async def test_a_takeover_is_asked_for_once() -> None:
    shop = tunnel(container=ContainerPort(mode="expose", port=8080, takes_over=True))
    asked = wishes()
    before = await asked.request(shop)
    asked.note_given(shop, "", 8080)

    assert (before.takeover, (await asked.request(shop)).takeover) == (True, False)


async def test_a_pull_says_where_it_listens() -> None:
    request = await wishes().request(
        tunnel("tcp", container=ContainerPort(mode="pull", port=5432, host="::1"))
    )

    assert (request.kind, request.mode, request.host) == ("tcp", "pull", "::1")


@pytest.mark.parametrize(
    ("host_header", "target", "expected"),
    [
        ("preserve", TARGET, None),
        ("fixed.test", TARGET, "fixed.test"),
        ("rewrite", TARGET, "127.0.0.1:3000"),
        ("rewrite", Target(text="", host="::1", port=80), "[::1]"),
        ("rewrite", Target(text="", host="shop.test", port=443, tls=True), "shop.test"),
        ("rewrite", Target(text="", unix_path=Path("/run/shop")), "localhost"),
    ],
)
@pytest.mark.parametrize("container", [None, ContainerPort(mode="expose")], ids=["name", "port"])
async def test_the_host_header_is_the_public_one_the_targets_or_a_fixed_one(
    host_header: str, target: Target, expected: str | None, container: ContainerPort | None
) -> None:
    request = await wishes().request(
        tunnel(host_header=host_header, target=target, container=container)
    )

    assert request.host_header == expected


async def test_passwords_are_hashed_once() -> None:
    shop = tunnel(basic_auth=(("ada", Secret("lovelace")),))
    asked = wishes()

    first, second = await asked.request(shop), await asked.request(shop)

    assert first.basic_auth == second.basic_auth
    assert first.basic_auth is not None
    assert first.basic_auth[0].user == "ada"
    assert "lovelace" not in first.basic_auth[0].password_hash
