"""Sessions of stock clients: lost and resumed, taken over, ended, refused; nothing leaks meanwhile."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from helpers.doubles.process import Double, start_hoody
from helpers.origins import WebOrigin
from helpers.processes import free_port
from helpers.site import Site

STEP_SECONDS = 20.0
OLD = ("--generation", "old")
NEW = ("--generation", "new")
CLIENTS = [
    pytest.param(OLD, id="old v1"),
    pytest.param((*OLD, "--sockets", "4"), id="old v2"),
    pytest.param(NEW, id="new v1"),
    pytest.param((*NEW, "--sockets", "4"), id="new v2"),
]


async def expose(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str | Path, port: int = 0
) -> tuple[Double, int]:
    client = await start_hoody(stack, site, "--expose", f"{port}:127.0.0.1:{origin.port}", *options)
    return client, int((await client.wait_event("bound"))["container_port"])


async def page(site: Site, port: int, *options: str) -> str:
    return (await site.run_curl(*options, f"http://127.0.0.1:{port}/")).text


@pytest.mark.parametrize("options", CLIENTS)
async def test_a_client_that_lost_its_connection_resumes_and_visitors_are_held_meanwhile(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    does_it_by_itself = options[1] == "new"
    client, port = await expose(
        stack, site, origin, *options, *(["--keep-alive"] if does_it_by_itself else [])
    )
    since = len(client.lines)
    client.command("drop")
    await site.server.wait_line("session parked")

    async with asyncio.TaskGroup() as visits:
        visit = visits.create_task(page(site, port))
        if not does_it_by_itself:
            client.command("resume")
        resumed = await client.wait_event("connected", since=since)

    assert visit.result() == "hello "
    assert resumed["resumed"] is True
    assert resumed["resumed_binds"] == [
        {"bindId": 1, "kind": "http", "mode": "expose", "containerPort": port}
    ]
    assert client.violations == []


async def test_visitors_of_a_parked_port_that_may_not_wait_are_told_to_come_again(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("hold.per_tunnel=0")
    client, port = await expose(stack, site, origin, *NEW)
    client.command("vanish")
    await site.server.wait_line("session parked")

    answer = await page(site, port, "-i")
    overview = await site.api("GET", "/api/v1/tunnel/tunnels")
    listed = await site.api("GET", "/api/v1/tunnel/sessions")

    assert answer.startswith("HTTP/1.1 503 ")
    assert "retry-after: 5" in answer.lower()
    assert (overview["orphanedSessions"], listed["total"]) == (1, 0)


async def test_a_session_is_resumed_while_its_old_socket_seems_alive(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW, "--sockets", "4")
    client.command("freeze")
    session_id = client.events("connected")[0]["session_id"]

    other = await start_hoody(
        stack, site, *NEW, "--resume", session_id, "--expose", f"0:127.0.0.1:{origin.port}"
    )

    connected = await other.wait_event("connected")
    assert (connected["resumed"], connected["subprotocol"]) == (True, "hoody-tunnel.v1")
    assert await page(site, port) == "hello "


async def test_a_client_resumes_by_itself_after_the_server_restarted(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW, "--keep-alive")
    await site.server.kill()
    since = len(client.lines)
    await site.start_server()

    connected = await client.wait_event("connected", since=since, seconds=STEP_SECONDS)

    assert connected["resumed"] is True
    assert await page(site, port) == "hello "


async def test_a_client_that_ended_gives_its_port_back_and_is_not_resumed(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *OLD)
    session_id = client.events("connected")[0]["session_id"]
    client.command("close")
    await client.wait_exit()

    second, again = await expose(stack, site, origin, *OLD, port=port)
    late = await start_hoody(
        stack, site, *NEW, "--resume", session_id, "--expose", f"0:127.0.0.1:{origin.port}"
    )

    assert again == port
    assert second.violations == []
    assert (await late.wait_event("refused"))["code"] == "RESUME_EXPIRED"


async def test_a_parked_port_is_held_until_somebody_takes_it_over(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW)
    client.command("vanish")
    await site.server.wait_line("session parked")

    refused = await start_hoody(stack, site, *NEW, "--expose", f"{port}:127.0.0.1:{origin.port}")
    assert (await refused.wait_event("bind_refused"))["code"] == "ALREADY_BOUND"
    _, again = await expose(stack, site, origin, *NEW, "--takeover", port=port)

    assert again == port
    assert await page(site, port) == "hello "


async def test_a_live_port_is_taken_over_and_its_streams_are_reset(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW)
    async with asyncio.TaskGroup() as visits:
        visit = visits.create_task(site.run_curl(f"http://127.0.0.1:{port}/gated"))
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()

        other, again = await expose(stack, site, origin, *NEW, "--takeover", port=port)
        revoked = await client.wait_event("bind_revoked")
        async with asyncio.timeout(STEP_SECONDS):
            await origin.arrived.acquire()  # it is safe to send again, and was
        origin.gate.set()

    assert visit.result().text == "through the gate"
    assert again == port
    assert revoked["bindId"] == 1
    assert [event["code"] for event in client.events("reset")] == [13]
    assert client.exit_code is None
    assert other.violations == []


async def test_another_token_takes_nothing_over(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    _, port = await expose(stack, site, origin, *NEW)
    other = site.directory / "other"
    other.write_text((await site.api("POST", "/api/tokens", {"label": "other"}))["token"])

    client = await start_hoody(
        stack, site, "--expose", f"{port}:127.0.0.1:1", "--takeover", "--token-file", other
    )

    assert (await client.wait_event("bind_refused"))["code"] == "ALREADY_BOUND"


@pytest.mark.parametrize(
    ("offset", "code"), [(2, "RESERVED_PORT"), (150, "RESERVED_PORT")], ids=["control", "tcp range"]
)
async def test_ports_of_the_server_are_reserved(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, offset: int, code: str
) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--expose", f"{site.base + offset}:127.0.0.1:1")

    assert (await client.wait_event("bind_refused"))["code"] == code


@pytest.mark.parametrize("port", [79, 80, 1023])
async def test_low_ports_are_privileged(site: Site, stack: AsyncExitStack, port: int) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--expose", f"{port}:127.0.0.1:1")

    assert (await client.wait_event("bind_refused"))["code"] == "PRIVILEGED_PORT"


async def test_a_port_of_another_program_is_in_use(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--expose", f"{origin.port}:127.0.0.1:1")

    assert (await client.wait_event("bind_refused"))["code"] == "PORT_IN_USE"


async def test_without_container_ports_there_is_still_a_public_name(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("hoody.expose=false")
    wanted = free_port()
    client, port = await expose(stack, site, origin, *NEW, "--label", "shop", port=wanted)

    assert (port, client.events("bound")[0]["public_url"]) == (
        wanted,
        f"http://shop.localhost:{site.http_port}",
    )
    assert (await site.curl("shop.localhost", "/")).text == "hello "
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_lost_secondary_costs_its_own_streams_only(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW, "--sockets", "4")
    client.command("drop", 2)
    origin.gate.set()

    assert [await page(site, port) for _ in range(8)] == ["hello "] * 8
    (session,) = await site.api("GET", "/api/sessions")
    assert (session["connections"], session["open_streams"]) == (3, 0)
    assert client.exit_code is None


@pytest.mark.parametrize("kind", ["used", "nonce", "index"])
async def test_a_bad_ticket_is_refused_and_the_session_goes_on(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW, "--sockets", "4")

    await client.ask("join", kind, answer="join_failed")

    assert await page(site, port) == "hello "
