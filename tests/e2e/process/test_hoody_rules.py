"""What a stock client may not do, and what of that ends a stream, a socket or the session.

Each row of the protocol's tables of violations that a server is held to; afterwards a visitor of another
client is served as before, and nothing is left of the one that ended.
"""

import asyncio
import signal
from contextlib import AsyncExitStack

import aiohttp
import pytest

from helpers.doubles.process import Double, start_hoody
from helpers.origins import WebOrigin
from helpers.site import Curl, Site

STEP_SECONDS = 20.0
NEW = ("--generation", "new")
V2 = (*NEW, "--sockets", "4")


async def expose(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str
) -> tuple[Double, int]:
    client = await start_hoody(stack, site, "--expose", f"0:127.0.0.1:{origin.port}", *options)
    return client, int((await client.wait_event("bound"))["container_port"])


async def visit(site: Site, port: int, path: str = "/", *options: str) -> Curl:
    return await site.run_curl(*options, f"http://127.0.0.1:{port}{path}")


async def nothing_is_left(site: Site) -> None:
    """Wait until no session, stream or binding is left."""
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            overview = await site.api("GET", "/api/v1/tunnel/tunnels")
            if not overview["sessions"] and not overview["orphanedSessions"]:
                break
            await asyncio.sleep(0.05)
    text = await site.metrics()
    for name in ("agents_connected", "streams_open", "held_requests"):
        assert f"moleport_server_{name} 0.0" in text, name


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("second-hello", 1),
        ("join-attached", 1),
        ("empty-message", 1),
        ("frames-65", 1),
        ("oversize-frame", 5),
        ("truncated", 1),
        ("short-header", 1),
        ("short-reset", 1),
        ("goaway-bad", 1),
        ("endless-length", 5),
        ("type-high", 1),
        ("type-gap", 1),
        ("window-zero", 1),
        ("window-short", 1),
        ("window-long", 1),
        ("data-on-zero", 1),
        ("never-allocated", 1),
        ("head-never-allocated", 1),
        ("stream-open", 1),
        ("hello-ok", 1),
        ("bind-bad-json", 1),
        ("bind-without-ref", 1),
        ("bind-deep-json", 1),
        ("unbind-bad", 1),
    ],
)
async def test_a_broken_rule_ends_the_session_with_its_ports(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str, code: int
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2)

    client.command("misbehave", kind)

    goaway = await client.wait_event("goaway")
    assert goaway["code"] == code
    await nothing_is_left(site)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert "task failed" not in site.server.output


@pytest.mark.parametrize("kind", ["oversize-message", "huge-message"])
async def test_a_message_that_is_too_large_ends_the_session_with_its_ports(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2)

    client.command("misbehave", kind)

    await client.wait_event("socket_closed")
    await nothing_is_left(site)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert "task failed" not in site.server.output


@pytest.mark.parametrize(
    "kind",
    [
        "type-optional",
        "window-over",
        "pong-unknown",
        "unbind-foreign",
        "late",
        "overrun-closed",
        "text",
    ],
)
async def test_what_is_odd_but_legal_changes_nothing(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2)
    assert (await visit(site, port)).text == "hello "

    client.command("misbehave", kind)

    assert [(await visit(site, port)).text for _ in range(3)] == ["hello "] * 3
    assert client.exit_code is None
    assert client.violations == []


@pytest.mark.parametrize(
    "response",
    [
        "data-before-head",
        "eof-before-head",
        "bad-json",
        "bad-header",
        "bad-headers",
        "status-text",
        "status-99",
        "status-600",
        "status-0",
        "reset-before-head",
    ],
)
async def test_an_answer_that_breaks_a_rule_is_a_bad_gateway(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, response: str
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2, "--response", response)

    page = await visit(site, port, "/", "-i")

    assert page.text.startswith("HTTP/1.1 502 ")
    assert client.exit_code is None
    assert (await site.api("GET", "/api/sessions"))[0]["open_streams"] == 0


@pytest.mark.parametrize(
    "response", ["second-head", "reset-in-body", "overrun-stream", "vanish-in-body"]
)
async def test_an_answer_that_breaks_off_is_cut(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, response: str
) -> None:
    await site.start_server()
    _, port = await expose(stack, site, origin, *V2, "--response", response)

    # So slow that an overrun is one.
    page = await visit(site, port, "/size/3000000", "--limit-rate", "100k", "--max-time", "10")

    assert page.exit_code != 0


async def test_a_frame_above_the_size_limit_in_an_answer_ends_the_session(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2, "--response", "oversize-data")

    page = await visit(site, port, "/size/3000000")

    assert page.exit_code != 0
    assert (await client.wait_event("goaway"))["code"] == 5
    await nothing_is_left(site)


async def test_a_request_that_is_never_answered_is_given_up(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("limits.response_head_seconds=1")
    client, port = await expose(stack, site, origin, *V2)

    page = await visit(site, port, "/gated", "-i", "--max-time", "20")

    assert page.text.startswith("HTTP/1.1 504 ")
    assert client.exit_code is None
    async with asyncio.timeout(STEP_SECONDS):
        while (await site.api("GET", "/api/sessions"))[0]["open_streams"]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("options", [("--wrong-socket",), ("--late-frames",)], ids=str)
async def test_frames_on_the_wrong_socket_and_after_a_reset_do_no_harm(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, options: tuple[str, ...]
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *V2, *options)

    for _ in range(3):
        async with asyncio.timeout(STEP_SECONDS), aiohttp.ClientSession() as visitor:
            with pytest.raises(TimeoutError):
                await visitor.get(
                    f"http://127.0.0.1:{port}/gated", timeout=aiohttp.ClientTimeout(total=0.3)
                )
        page = await visit(site, port, "/size/1000000")
        assert len(page.out) == 1_000_000

    assert client.exit_code is None
    assert client.violations == []


@pytest.mark.parametrize(
    "first", ["garbage", "not-hello", "bad-json", "list-json", "other-version", "join"]
)
async def test_a_bad_first_message_closes_the_connection(
    site: Site, stack: AsyncExitStack, first: str
) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--first-message", first)

    closed = await client.wait_event("socket_closed")

    assert closed["code"] in (1002, 1008)


@pytest.mark.parametrize("first", ["silence", "text"])
async def test_a_client_that_says_nothing_of_meaning_is_dropped_without_a_word(
    site: Site, stack: AsyncExitStack, first: str
) -> None:
    await site.start_server("limits.first_frame_seconds=1")
    client = await start_hoody(stack, site, "--first-message", first)

    closed = await client.wait_event("socket_closed")

    assert closed["code"] is None
    assert client.events("answer") == []


@pytest.mark.parametrize("offered", ["none", "hoody-tunnel.v3"])
async def test_another_subprotocol_is_refused_with_the_list_of_ours(
    site: Site, stack: AsyncExitStack, offered: str
) -> None:
    await site.start_server()
    client = await start_hoody(stack, site, "--subprotocol", offered)

    refused = await client.wait_event("refused")

    assert refused["status"] == 400
    headers = {name.lower(): value for name, value in dict(refused["headers"]).items()}
    assert headers["x-hoody-tunnel-versions"] == "hoody-tunnel.v1, hoody-tunnel.v2"


@pytest.mark.parametrize(
    "credential",
    ["hello", "bearer", "basic", "query:token", "header:X-Hoody-Token"],
)
async def test_a_credential_comes_in_by_every_way_of_the_family(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, credential: str
) -> None:
    await site.start_server()
    _, port = await expose(stack, site, origin, "--credential", credential)

    assert (await visit(site, port)).text == "hello "


async def test_the_admin_kills_a_session_and_it_does_not_come_back(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW, "--keep-alive")
    session_id = client.events("connected")[0]["session_id"]

    killed = await site.api("DELETE", f"/api/v1/tunnel/sessions/{session_id}?grace_ms=200")
    goaway = await client.wait_event("goaway")

    assert killed == {"sessionId": session_id, "status": "closing"}
    assert (goaway["code"], goaway["message"]) == (1, "closed by admin")
    # It would try for a minute if it were given fresh sessions.
    assert await client.wait_exit(seconds=STEP_SECONDS) == 1
    assert client.events("refused")[-1]["code"] == "RESUME_EXPIRED"
    await nothing_is_left(site)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_parked_session_is_killed_at_once(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, *NEW)
    session_id = client.events("connected")[0]["session_id"]
    client.command("vanish")
    await site.server.wait_line("session parked")

    await site.api("DELETE", f"/api/v1/tunnel/sessions/{session_id}")

    await nothing_is_left(site)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_too_many_sessions_are_refused_as_that(site: Site, stack: AsyncExitStack) -> None:
    await site.start_server("limits.sessions=1")
    first = await start_hoody(stack, site, "--expose", "0:127.0.0.1:1")
    await first.wait_event("bound")

    second = await start_hoody(stack, site, *NEW, "--expose", "0:127.0.0.1:1")

    assert (await second.wait_event("refused"))["code"] == "SESSION_LIMIT"


async def test_a_server_that_ends_says_goodbye(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client, _ = await expose(stack, site, origin, *NEW)

    site.server.send_signal(signal.SIGTERM)
    goaway = await client.wait_event("goaway")

    assert goaway["code"] == 0
    assert await site.server.wait_exit() == 0


@pytest.mark.parametrize("generation", ["old", "new"])
async def test_visitors_that_leave_cost_the_session_no_credit(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, generation: str
) -> None:
    await site.start_server()
    client, port = await expose(stack, site, origin, "--generation", generation)
    full = (await client.ask("stats", answer="stats"))["session_credit"]

    for _ in range(8):
        left = await visit(site, port, "/size/3000000", "--max-time", "0.05", "--limit-rate", "1k")
        assert left.exit_code != 0

    async with asyncio.timeout(STEP_SECONDS):
        while True:
            (session,) = await site.api("GET", "/api/sessions")
            stats = await client.ask("stats", answer="stats")
            # The server gives back by the MiB.
            if session["open_streams"] == 0 and stats["session_credit"] > full - 1024 * 1024:
                break
            await asyncio.sleep(0.05)
    assert (await visit(site, port)).text == "hello "
    assert stats["open_streams"] == 0
    assert client.violations == []
