"""An agent that crashes, or whose connection fails, costs visitors a wait and nothing else.

All of it happens under 200 requests a second. A request may fail only if its answer had begun; one
that waited is over at most 0.3 s after the agent has its tunnel back.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from helpers.origins import PATTERN, RawOrigin, WebOrigin, echo, pattern_hash
from helpers.processes import Agent, moment
from helpers.relay import Relay
from helpers.site import Site
from helpers.visits import Load, Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0


@pytest.fixture
async def relay(site: Site) -> AsyncIterator[Relay]:
    async with Relay(site.control_port) as relay:
        yield relay


def check_nobody_failed(load: Load) -> None:
    assert [attempt for attempt in load.failures() if not attempt.had_begun] == []


async def start_shop(
    site: Site, origin: WebOrigin, relay: Relay | None = None, *options: str
) -> Agent:
    server = () if relay is None else ("--server", f"https://localhost:{relay.port}")
    # The profile is for the server's own port, so what it says comes by flags.
    flags = ("--token-file", site.data_dir / "admin-token", "--ca-file", site.ca_file)
    arguments = ("http", str(origin.port), *(*server, *(flags if server else ())), *options)
    return await site.start_agent(*arguments, "--quiet")


async def test_no_request_fails_when_the_agent_is_killed_and_started_again(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    first = await start_shop(site, origin, None, "--name", "shop")

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(200)
        await first.kill()
        second = await start_shop(site, origin, None, "--name", "shop")
        await load.wait_successes(200)

    check_nobody_failed(load)
    event = second.events("tunnel_opened")[0]
    load.check_waits_ended_soon_after(moment(event))
    assert event["public_url"] == first.events("tunnel_opened")[0]["public_url"]


async def test_no_request_fails_when_the_connection_of_the_agent_is_cut(
    site: Site, origin: WebOrigin, relay: Relay
) -> None:
    await site.start_server()
    # A random name: it has to be the same one afterwards.
    agent = await start_shop(site, origin, relay)
    url = agent.events("tunnel_opened")[0]["public_url"]
    host = url.removeprefix("http://").split(":")[0]

    async with Load(site.http_port, host).running() as load:
        for _ in range(3):
            await load.wait_successes(100)
            seen = len(agent.lines)
            relay.cut()
            await agent.wait_event("disconnected", since=seen)
            relay.restore()
            event = (await agent.wait_opened(since=seen))[0]
            assert event["public_url"] == url
            await load.wait_successes(50)
            load.check_waits_ended_soon_after(moment(event))

    check_nobody_failed(load)


async def test_no_request_fails_when_the_link_is_silent_for_a_moment(
    site: Site, origin: WebOrigin, relay: Relay
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin, relay, "--name", "shop")

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        relay.stall()
        # Nothing comes back any more: the next second of requests waits.
        answered = load.successes
        async with asyncio.timeout(STEP_SECONDS):
            while not await is_quiet(load):
                pass
        relay.restore()
        await load.wait_successes(200)

    assert load.successes > answered
    assert load.failures() == []
    assert agent.events("disconnected") == []


async def is_quiet(load: Load) -> bool:
    before = len(load.attempts)
    await asyncio.sleep(1)
    return len(load.attempts) == before


@pytest.mark.load
@pytest.mark.timeout(120)
async def test_no_request_fails_when_the_connection_is_lost_without_a_sign(
    site: Site, origin: WebOrigin, relay: Relay
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin, relay, "--name", "shop")

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        seen = len(agent.lines)
        relay.forget()
        # Only silence tells: the agent gives its server 25 seconds.
        await agent.wait_event("disconnected", since=seen, seconds=40)
        event = (await agent.wait_opened(since=seen))[0]
        await load.wait_successes(200, seconds=60)

    check_nobody_failed(load)
    load.check_waits_ended_soon_after(moment(event))


async def test_a_tcp_port_stays_and_a_visitor_is_held_while_the_agent_is_away(site: Site) -> None:
    await site.start_server()
    async with RawOrigin(echo) as service:
        first = await site.start_agent("tcp", str(service.port))
        url = first.events("tunnel_opened")[0]["public_url"]
        port = int(url.rpartition(":")[2])
        await first.kill()

        async with await Visitor.connect(port) as visitor:
            visitor.send(b"early")
            second = await site.start_agent("tcp", str(service.port), "--port", str(port))
            async with asyncio.timeout(STEP_SECONDS):
                assert await visitor.reader.readexactly(5) == b"early"

    assert second.events("tunnel_opened")[0]["public_url"] == url


async def test_an_answer_that_had_begun_ends_visibly_when_the_agent_is_killed(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin, None, "--name", "shop")

    async with await Visitor.connect(site.http_port) as visitor:
        visitor.send(f"GET /half HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        async with asyncio.timeout(STEP_SECONDS):
            await visitor.reader.readuntil(b"\r\n\r\n")
            await visitor.reader.readexactly(1000)
        await agent.kill()
        # A reset, or an end before the promised length: never a complete answer.
        assert await visitor.read_to_end(seconds=STEP_SECONDS) == b""


async def test_requests_beyond_the_lease_are_refused(site: Site, origin: WebOrigin) -> None:
    await site.start_server("hold.lease_seconds=1")
    agent = await start_shop(site, origin, None, "--name", "shop")
    await agent.kill()

    held = await site.curl(HOST, "/", "-D", "-", "-o", "/dev/null")
    after = await site.curl(HOST, "/", "-D", "-", "-o", "/dev/null")

    assert held.text.startswith("HTTP/1.1 503") or held.text.startswith("HTTP/1.1 404")
    assert after.text.startswith("HTTP/1.1 404")


async def test_a_session_of_four_connections_serves_and_survives_losing_one(
    site: Site, origin: WebOrigin, relay: Relay
) -> None:
    await site.start_server()
    agent = await start_shop(site, origin, relay, "--name", "shop", "--connections", "4")
    async with asyncio.timeout(STEP_SECONDS):
        while (await site.api("GET", "/api/sessions"))[0]["connections"] != 4:
            await asyncio.sleep(0.02)

    async with Load(site.http_port, HOST, connections=32).running() as load:
        await load.wait_successes(200)
        relay.reset_newest()
        await load.wait_successes(200)
        relay.reset_newest()
        await load.wait_successes(200)

    check_nobody_failed(load)
    assert agent.exit_code is None


async def test_big_bodies_are_whole_over_four_connections(
    site: Site, origin: WebOrigin, relay: Relay
) -> None:
    size = len(PATTERN) * 64
    await site.start_server()
    await start_shop(site, origin, relay, "--name", "shop", "--connections", "4")

    async with asyncio.TaskGroup() as visits:
        pages = [
            visits.create_task(site.curl(HOST, f"/size/{size}", "--fail", "-w", "%{stderr}"))
            for _ in range(8)
        ]

    for page in pages:
        assert page.result().exit_code == 0
        assert len(page.result().out) == size
        assert page.result().out == PATTERN * 64, pattern_hash(size)
