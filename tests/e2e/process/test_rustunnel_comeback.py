"""Stock rustunnel clients lose connections, servers and time, and visitors hardly notice.

The client is a double that shares no code with the server (`helpers.doubles`). It comes back after
exactly one second the first time, as the stock client does.
"""

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers.doubles.process import Double, start_rustunnel
from helpers.origins import RawOrigin, WebOrigin, echo
from helpers.processes import moment
from helpers.relay import Relay
from helpers.site import Site
from helpers.visits import Load, Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0
RELEASES = ["0.3.6", "0.7.8", "0.8.2"]


async def start_shop(
    stack: AsyncExitStack,
    site: Site,
    origin: WebOrigin,
    *options: str | Path,
    name: str | None = "shop",
) -> Double:
    tunnel = f"http:127.0.0.1:{origin.port}" + (f":{name}" if name else "")
    client = await start_rustunnel(stack, site, tunnel, options=options)
    await client.wait_event("attached")
    return client


def urls(client: Double, *, since: int = 0) -> list[str]:
    return [event["public_url"] for event in client.events("registered", since=since)]


@pytest.mark.parametrize("release", RELEASES)
async def test_no_request_fails_when_the_link_is_cut(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", release)

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(200)
        seen = len(client.lines)
        client.command("cut")
        await client.wait_event("attached", since=seen)
        await load.wait_successes(200)

    assert [a for a in load.failures() if not a.had_begun] == []
    # Its first attempt, a second after the cut, ends the wait of everybody.
    assert [event["seconds"] for event in client.events("reconnecting", since=seen)] == [1.0]
    load.check_waits_ended_soon_after(moment(client.events("attached", since=seen)[0]))
    assert urls(client)[0] == urls(client)[1]
    assert client.violations == []
    # The same tunnel for those who watch: id, history and counters stay.
    registered = client.events("registered")
    assert registered[0]["tunnel_id"] == registered[1]["tunnel_id"]


async def test_a_new_client_attaches_its_data_channel_again_and_no_request_fails(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", "0.7.8")

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        for kind in ("drop", "close", "version", "goaway", "drop"):
            seen = len(client.lines)
            client.command("data", kind)
            await client.wait_event("attached", since=seen)
            await load.wait_successes(50)

    assert [a for a in load.failures() if not a.had_begun] == []
    assert len(client.events("connected")) == 1


@pytest.mark.parametrize("kind", ["drop", "noise", "even-stream", "unasked-pong"])
async def test_an_old_client_comes_back_whole_when_its_data_channel_is_lost(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", "0.3.6")

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        client.command("data", kind)
        if kind in ("unasked-pong", "even-stream"):
            await load.wait_successes(100)  # ignored, and refused
        else:
            await client.wait_events("attached", 2)
            await load.wait_successes(100)

    assert [a for a in load.failures() if not a.had_begun] == []


@pytest.mark.parametrize("release", RELEASES)
async def test_a_killed_server_gets_its_clients_back_with_their_names(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", release)

    async with Load(site.http_port, HOST).running() as load:
        await load.wait_successes(100)
        seen = len(client.lines)
        await site.server.kill()
        await site.start_server()
        ready = datetime.now(UTC)
        await client.wait_event("attached", since=seen)
        await load.wait_successes(200)

    assert load.failures(since=ready) == []
    assert urls(client)[0] == urls(client)[-1]


@pytest.mark.parametrize("release", RELEASES)
async def test_a_server_that_is_restarted_in_order_gets_its_clients_back(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server("server.drain_delay_seconds=0")
    client = await start_shop(stack, site, origin, "--release", release)
    async with asyncio.TaskGroup() as visits:
        page = visits.create_task(site.curl(HOST, "/gated"))
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()
        site.server.send_signal(signal.SIGTERM)
        await site.server.wait_line("draining")
        origin.gate.set()

    # What was under way is finished, and the client does not take the end for good.
    assert page.result().text == "through the gate"
    assert await site.server.wait_exit() == 0
    seen = len(client.lines)
    await site.start_server()
    await client.wait_event("attached", since=seen)
    assert (await site.curl(HOST, "/")).text == "hello "
    assert client.violations == []


@pytest.mark.parametrize("release", RELEASES)
async def test_a_client_that_was_lost_without_a_sign_gets_its_name_from_its_dead_session(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server()
    async with Relay(site.control_port) as relay:
        server = ("--server", f"localhost:{relay.port}")
        lost = await start_shop(stack, site, origin, *server, "--release", release)
        relay.forget()
        lost.send_signal(signal.SIGKILL)

        again = await start_shop(stack, site, origin, *server, "--release", release)

        assert (await site.curl(HOST, "/")).text == "hello "
        assert again.events("error") == []
        assert urls(again) == urls(lost)


async def test_the_name_of_another_token_is_in_use_and_the_refusal_names_no_login(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    token = await site.api("POST", "/api/tokens", {"label": "authors"})
    secret = site.directory / "token"
    secret.write_text(token["token"])
    await start_shop(stack, site, origin, name="author")

    other = await start_rustunnel(
        stack,
        site,
        f"http:127.0.0.1:{origin.port}:author",
        options=("--token-file", secret, "--release", "0.3.6"),
    )

    error = await other.wait_event("error")
    assert error["fatal"] is False
    assert error["text"].startswith("tunnel error: tunnel error: subdomain '")
    assert error["text"].endswith("' is already in use")
    await other.wait_event("reconnecting")


async def test_a_random_name_and_port_come_back_to_the_client_that_had_them(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    async with RawOrigin(echo) as service:
        client = await start_rustunnel(
            stack,
            site,
            f"http:127.0.0.1:{origin.port}",
            f"tcp:127.0.0.1:{service.port}",
        )
        await client.wait_event("attached")
        before = urls(client)
        host = before[0].removeprefix("http://").split(":")[0]
        port = int(before[1].rpartition(":")[2])

        seen = len(client.lines)
        client.command("cut")
        await client.wait_event("error", since=seen)
        async with await Visitor.connect(port) as early:
            early.send(b"early")
            await client.wait_event("attached", since=seen)

            async with asyncio.timeout(STEP_SECONDS):
                assert await early.reader.readexactly(5) == b"early"
        assert (await site.curl(host, "/")).text == "hello "
        assert urls(client, since=seen) == before

        seen = len(client.lines)
        await site.server.kill()
        await site.start_server()
        await client.wait_event("attached", since=seen)

    assert urls(client, since=seen) == before


async def test_another_service_of_the_same_machine_gets_a_name_of_its_own(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    first = await start_shop(stack, site, origin, name=None)
    await first.kill()

    async with WebOrigin() as other_origin:
        second = await start_shop(stack, site, other_origin, name=None)

    assert urls(first) != urls(second)


@pytest.mark.parametrize("release", RELEASES)
async def test_ctrl_c_ends_the_hold_but_keeps_the_name(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", release)

    client.command("interrupt")

    assert await client.wait_exit() == 0
    page = await site.curl(HOST, "/", "-D", "-")
    assert page.text.startswith("HTTP/1.1 503")
    again = await start_shop(stack, site, origin, "--release", release)
    assert (await site.curl(HOST, "/")).text == "hello "
    assert urls(again) == urls(client)


async def test_visitors_are_held_until_the_data_channel_is_there(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    zombie = await start_rustunnel(
        stack,
        site,
        f"http:127.0.0.1:{origin.port}:shop",
        options=("--never-attach", "--no-reconnect"),
    )
    await zombie.wait_event("registered")
    async with asyncio.TaskGroup() as visits:
        page = visits.create_task(site.curl(HOST, "/"))
        # A client that shows its tunnel and never serves it is cut off after 15 seconds.
        await zombie.wait_exit(seconds=25)
        await start_shop(stack, site, origin)

    assert page.result().text == "hello "
    assert zombie.violations == []


async def test_pings_keep_an_idle_client_for_longer_than_any_silence(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--heartbeat-seconds", "0.5")

    for _ in range(3):
        await client.wait_event("pong", since=len(client.lines))

    await client.wait_event("ping_answered", seconds=25)
    assert client.violations == []
    assert (await site.curl(HOST, "/")).text == "hello "
