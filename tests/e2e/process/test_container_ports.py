"""Our own agent binds container ports: `moleport expose` and `moleport pull`."""

import asyncio
import hashlib
import signal

import pytest

from helpers.origins import PATTERN, RawOrigin, WebOrigin
from helpers.processes import Agent, free_port
from helpers.site import Site
from helpers.visits import Visitor

STEP_SECONDS = 20.0


def port_of(agent: Agent) -> int:
    port: int = agent.events("tunnel_opened")[-1]["container_port"]
    return port


async def page(site: Site, port: int) -> str:
    return (await site.run_curl(f"http://127.0.0.1:{port}/")).text


async def test_expose_leads_to_the_service_by_port_and_by_name(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    wanted = free_port()
    agent = await site.start_agent("expose", str(origin.port), "--port", str(wanted))

    event = agent.events("tunnel_opened")[0]

    assert port_of(agent) == wanted
    assert event["public_url"] == f"http://port-{wanted}.localhost:{site.http_port}"
    assert await page(site, wanted) == "hello "
    assert (await site.curl(f"port-{wanted}.localhost", "/")).text == "hello "


async def test_visitors_of_a_container_port_pass_the_rules_of_the_tunnel(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await site.start_agent("expose", str(origin.port), "--allow-cidr", "192.0.2.0/24")

    refused = await site.run_curl("-i", f"http://127.0.0.1:{port_of(agent)}/")

    assert refused.text.startswith("HTTP/1.1 403 ")


async def test_pull_carries_half_closes(site: Site) -> None:
    async def sum_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hashlib.sha256(await reader.read()).hexdigest().encode())

    await site.start_server()
    async with RawOrigin(sum_up) as service:
        agent = await site.start_agent("pull", str(service.port))
        async with await Visitor.connect(port_of(agent)) as visitor:
            visitor.send(PATTERN * 16)
            visitor.writer.write_eof()
            answer = await visitor.read_to_end()

    assert answer.decode() == hashlib.sha256(PATTERN * 16).hexdigest()


async def test_an_agent_that_was_killed_gets_its_port_back(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    wanted = str(free_port())
    agent = await site.start_agent("expose", str(origin.port), "--port", wanted)
    await agent.kill()

    again = await site.start_agent("expose", str(origin.port), "--port", wanted)

    assert port_of(again) == int(wanted)
    assert await page(site, port_of(again)) == "hello "


async def test_a_server_that_was_killed_gives_the_same_port_again(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await site.start_agent("expose", str(origin.port))
    port, since = port_of(agent), len(agent.lines)
    await site.server.kill()
    await site.start_server()

    await agent.wait_opened(since=since, seconds=STEP_SECONDS)

    assert port_of(agent) == port
    assert await page(site, port) == "hello "


async def test_a_port_is_taken_over_when_asked_for(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    wanted = str(free_port())
    first = await site.start_agent("expose", str(origin.port), "--port", wanted)

    second = await site.start_agent("expose", str(origin.port), "--port", wanted, "--takeover")
    await first.wait_event("tunnel_closed")

    assert port_of(second) == int(wanted)
    assert await page(site, int(wanted)) == "hello "


@pytest.mark.parametrize(
    ("arguments", "flag", "code"),
    [
        (("expose", "3000", "--port", "79"), "", "PRIVILEGED_PORT"),
        (("expose", "3000", "--port", "{control}"), "", "RESERVED_PORT"),
        (("pull", "3000"), "hoody.pull=false", "FORBIDDEN"),
    ],
    ids=["privileged", "reserved", "off"],
)
async def test_a_port_that_nobody_gets_ends_the_agent_with_a_reason(
    site: Site, arguments: tuple[str, ...], flag: str, code: str
) -> None:
    await site.start_server(*([flag] if flag else []))
    words = [word.format(control=site.control_port) for word in arguments]
    agent = await site.launch_agent(*words)

    refused = await agent.wait_event("tunnel_refused")

    assert (refused["code"], refused["is_final"]) == (code, True)
    assert await agent.wait_exit() != 0


async def test_an_agent_that_ends_closes_its_port(site: Site, origin: WebOrigin) -> None:
    await site.start_server("hold.lease_seconds=1")
    agent = await site.start_agent("expose", str(origin.port))
    agent.send_signal(signal.SIGINT)
    await agent.wait_exit()
    await site.server.wait_line("tunnel closed")

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port_of(agent))
