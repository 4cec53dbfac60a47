"""Who may visit, who may have which name, and what the service sees of it."""

import asyncio
import contextlib
import json

import pytest

from helpers.origins import RawOrigin, WebOrigin
from helpers.processes import Agent
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
PASSWORD = "open-sesame-4711"


async def token_file(site: Site, label: str, scope: str | None = None) -> str:
    """Create a token as the admin does, and return the name of its file."""
    created = await site.api("POST", "/api/tokens", {"label": label, "scope": scope})
    path = site.directory / f"token-{label}"
    path.write_text(created["token"] + "\n")
    return str(path)


async def start_with(site: Site, token: str, *arguments: str) -> Agent:
    return await site.launch_agent("http", *arguments, "--token-file", token)


async def test_basic_auth_lets_in_who_knows_the_password(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    secrets = site.directory / "users"
    secrets.write_text(f"# people\nann:{PASSWORD}\n")
    await site.start_agent(
        "http", str(origin.port), "--name", "shop", "--basic-auth-file", str(secrets)
    )

    nobody = await site.curl(HOST, "/", "-D", "-")
    wrong = await site.curl(HOST, "/", "-o", "/dev/null", "-w", "%{http_code}", "-u", "ann:no")
    right = await site.curl(HOST, "/headers", "-u", f"ann:{PASSWORD}")

    assert nobody.text.startswith("HTTP/1.1 401")
    assert "www-authenticate: basic" in nobody.text.lower()
    assert wrong.text == "401"
    # The password is for the tunnel, not for the service behind it.
    assert "authorization" not in json.loads(right.out)


@pytest.mark.parametrize(("cidr", "status"), [("127.0.0.0/8", 200), ("192.0.2.0/24", 403)])
async def test_allow_cidr_decides_by_the_visitors_address(
    site: Site, origin: WebOrigin, cidr: str, status: int
) -> None:
    await site.start_server()
    await site.start_agent("http", str(origin.port), "--name", "shop", "--allow-cidr", cidr)

    async with await Visitor.connect(site.http_port) as visitor:
        answer = await visitor.get(HOST, extra="X-Forwarded-For: 192.0.2.1\r\n")

    assert answer.status == status


async def test_allow_cidr_guards_tcp_tunnels_too(site: Site) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"secret")

    await site.start_server()
    async with RawOrigin(greet) as service:
        arguments = ("tcp", str(service.port), "--port", str(site.tcp_port))
        await site.start_agent(*arguments, "--allow-cidr", "192.0.2.0/24")
        # The reset may come before `connect` has returned.
        with contextlib.suppress(ConnectionResetError):
            async with await Visitor.connect(site.tcp_port) as visitor:
                assert await visitor.read_to_end() == b""
        assert service.connections == 0


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        ("preserve", "shop.localhost:{edge}"),
        ("rewrite", "127.0.0.1:{origin}"),
        ("dev.example", "dev.example"),
    ],
)
async def test_the_service_gets_the_host_header_that_was_asked_for(
    site: Site, origin: WebOrigin, rule: str, seen: str
) -> None:
    await site.start_server()
    await site.start_agent("http", str(origin.port), "--name", "shop", "--host-header", rule)

    await site.curl(HOST, "/headers")

    assert origin.hosts == [seen.format(edge=site.http_port, origin=origin.port)]


async def test_names_have_owners(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    ann, bob = await token_file(site, "ann"), await token_file(site, "bob", "bob-*")
    port = str(origin.port)
    first = await start_with(site, ann, port, "--name", "shop")
    await first.wait_opened()

    for token, name in ((bob, "shop"), (bob, "pot"), (ann, "admin"), (ann, "control")):
        refused = await start_with(site, token, port, "--name", name)
        assert (await refused.wait_event("tunnel_refused"))["message"]
        assert not refused.events("tunnel_opened")
        await refused.aclose()
    random = await start_with(site, bob, port)
    url = (await random.wait_opened())[0]["public_url"]

    assert url.startswith("http://bob-")
    assert (await site.curl(HOST, "/")).text == "hello "


async def test_a_name_outside_of_the_grant_ends_the_agent_with_5(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    bob = await token_file(site, "bob", "bob-*")

    agent = await start_with(site, bob, str(origin.port), "--name", "shop")

    assert await agent.wait_exit() == 5
    assert agent.events("tunnel_refused")[0]["is_final"]


async def test_a_second_agent_with_the_same_token_takes_the_name_over(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    ann = await token_file(site, "ann")
    async with WebOrigin() as other:
        first = await start_with(site, ann, str(origin.port), "--name", "shop")
        await first.wait_opened()
        tunnel = (await site.api("GET", "/api/tunnels"))[0]["tunnel_id"]
        second = await start_with(site, ann, str(other.port), "--name", "shop")
        await second.wait_opened()
        closed = await first.wait_event("tunnel_closed")
        await site.curl(HOST, "/")

        assert "took the address over" in closed["reason"]
        assert (other.seen["GET /"], origin.seen["GET /"]) == (1, 0)
    # The same tunnel: its history and its counters go on.
    assert (await site.api("GET", "/api/tunnels"))[0]["tunnel_id"] == tunnel


async def test_the_agent_follows_a_new_token_in_its_file(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    path = site.directory / "moving"
    path.write_text(f"{site.admin_token}\n")
    agent = await start_with(site, str(path), str(origin.port), "--name", "shop")
    await agent.wait_opened()
    fresh = "a-fresh-admin-token-0123456789abcdef"
    (site.data_dir / "admin-token").write_text(fresh)
    path.write_text(fresh)

    async with asyncio.timeout(40):
        # The old one ends within a moment of being replaced; the agent proves the new one first
        # or comes back with it. Either way the tunnel is there under its name.
        while (await site.curl_api("GET", "/api/sessions", token=fresh)).exit_code:
            await asyncio.sleep(0.05)
    assert (await site.curl(HOST, "/")).text == "hello "
