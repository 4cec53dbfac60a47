"""A server that crashes or is told to stop: what is durable stays, what is under way finishes."""

import asyncio
import json
import signal
import sqlite3
from datetime import UTC, datetime

import aiohttp
import pytest

from helpers.origins import RawOrigin, WebOrigin, echo
from helpers.processes import Agent
from helpers.site import Site
from helpers.visits import Load, Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0


async def start_shop(site: Site, origin: WebOrigin) -> Agent:
    return await site.start_agent("http", str(origin.port), "--name", "shop", "--quiet")


async def test_a_killed_server_comes_back_with_everything_and_no_request_fails_from_readiness_on(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    token = await site.api("POST", "/api/tokens", {"label": "shop", "scope": "shop,shop-*"})
    secret = site.directory / "token"
    secret.write_text(token["token"])
    async with RawOrigin(echo) as service:
        path = site.directory / "moleport.yaml"
        path.write_text(
            f"server: https://localhost:{site.control_port}\n"
            f"token_file: {secret}\nca_file: {site.ca_file}\n"
            "tunnels:\n"
            f"  shop: {{protocol: http, target: '{origin.port}', name: shop}}\n"
            f"  any: {{protocol: http, target: '{origin.port}'}}\n"
            f"  echo: {{protocol: tcp, target: '{service.port}'}}\n"
        )
        agent = await site.start_agent("start", "-f", path, "--quiet", tunnels=3)
        urls = {event["name"]: event["public_url"] for event in agent.events("tunnel_opened")}
        history = await site.api("GET", "/api/history")
        tunnel = next(row for row in await site.api("GET", "/api/tunnels") if row["label"] == HOST)
        instance = (await site.api("GET", "/api/server"))["instance_id"]
        assert (await site.curl(HOST, "/?captured")).exit_code == 0
        captured = await wait_for_stored_captures(site, 1)

        async with Load(site.http_port, HOST).running() as load:
            await load.wait_successes(200)
            seen = len(agent.lines)
            await site.server.kill()
            await site.start_server()
            ready = datetime.now(UTC)
            await agent.wait_opened(3, since=seen)
            await load.wait_successes(200)

    assert load.failures(since=ready) == []
    again = {e["name"]: e["public_url"] for e in agent.events("tunnel_opened", since=seen)}
    assert again == urls
    assert (await site.api("GET", "/api/server"))["instance_id"] == instance
    assert [row["id"] for row in await site.api("GET", "/api/tokens")] == [token["id"]]
    before = {row["id"] for row in history["entries"]}
    assert before <= {row["id"] for row in (await site.api("GET", "/api/history"))["entries"]}
    stored = await site.api("GET", f"/api/tunnels/{tunnel['tunnel_id']}/requests?limit=500")
    assert captured <= {row["id"] for row in stored}


async def wait_for_stored_captures(site: Site, count: int) -> set[str]:
    """Return the ids of captures that are on disk: the writer works behind the requests."""
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            database = sqlite3.connect(f"file:{site.data_dir}/captures.db?mode=ro", uri=True)
            try:
                ids = {row[0] for row in database.execute("SELECT id FROM captures")}
            finally:
                database.close()
            if len(ids) >= count:
                return ids
            await asyncio.sleep(0.05)


async def test_sigterm_finishes_what_is_under_way_and_ends_with_0(
    site: Site, origin: WebOrigin
) -> None:
    server = await site.start_server("server.drain_delay_seconds=3")
    await start_shop(site, origin)

    async with aiohttp.ClientSession() as prober, asyncio.TaskGroup() as visits:
        page = visits.create_task(site.curl(HOST, "/gated"))
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STEP_SECONDS):
            while await site.readiness(prober) != 503:
                assert server.exit_code is None
        # Load balancers need a moment: new visitors still get in although readiness says no.
        assert (await site.curl(HOST, "/")).text == "hello "
        origin.gate.set()

    assert page.result().text == "through the gate"
    assert await server.wait_exit() == 0


async def test_the_drain_ends_at_its_deadline(site: Site, origin: WebOrigin) -> None:
    server = await site.start_server("server.drain_seconds=1")
    await start_shop(site, origin)

    async with asyncio.TaskGroup() as visits:
        page = visits.create_task(site.curl(HOST, "/endless", "-o", "/dev/null"))
        async with asyncio.timeout(STEP_SECONDS):
            while not origin.seen["GET /endless"]:
                await asyncio.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        assert await server.wait_exit(seconds=STEP_SECONDS) == 0

    assert page.result().exit_code in {18, 56}


async def test_a_second_signal_ends_the_server_at_once(site: Site, origin: WebOrigin) -> None:
    server = await site.start_server()
    await start_shop(site, origin)

    async with asyncio.TaskGroup() as visits:
        page = visits.create_task(site.curl(HOST, "/gated"))
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        server.send_signal(signal.SIGTERM)
        await server.wait_line("draining")
        server.send_signal(signal.SIGTERM)
        assert await server.wait_exit(seconds=STEP_SECONDS) != 0

    assert page.result().exit_code != 0


async def test_an_idle_server_ends_at_once_and_leaves_its_ports(
    site: Site, origin: WebOrigin
) -> None:
    server = await site.start_server()
    agent = await start_shop(site, origin)

    server.send_signal(signal.SIGTERM)
    assert await server.wait_exit(seconds=STEP_SECONDS) == 0
    seen = len(agent.lines)
    await site.start_server()
    await agent.wait_opened(since=seen)

    assert (await site.curl(HOST, "/")).text == "hello "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
async def test_an_agent_that_is_told_to_end_says_goodbye_and_nobody_is_held(
    site: Site, origin: WebOrigin, number: signal.Signals
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin)

    agent.send_signal(number)
    assert await agent.wait_exit() == 0
    async with await Visitor.connect(site.http_port) as visitor:
        # Far below the lease of a minute: a hold would not be over.
        async with asyncio.timeout(20):
            answer = await visitor.get(HOST)

    assert (answer.status, answer.header("X-Moleport-Error")) == (503, "agent-away")
    assert answer.header("Retry-After") == "5"
    assert json.loads(answer.body)["code"] == "agent-away"


async def test_an_agent_finishes_nothing_it_cannot_but_tells_the_visitor(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin)

    async with await Visitor.connect(site.http_port) as visitor:
        visitor.send(f"GET /gated HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        agent.send_signal(signal.SIGTERM)
        answer = await visitor.read_answer(seconds=STEP_SECONDS)

    assert answer.status == 503
    assert await agent.wait_exit() == 0
