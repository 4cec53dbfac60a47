"""Stock rustunnel clients have working tunnels, in every release, and REST shows them.

The client is a double that shares no code with the server (`helpers.doubles`).
"""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from helpers.doubles.process import Double, start_rustunnel
from helpers.origins import PATTERN, RawOrigin, WebOrigin, echo
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
STEP_SECONDS = 20.0


async def start_shop(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str, protocol: str = "http"
) -> Double:
    client = await start_rustunnel(
        stack, site, f"{protocol}:127.0.0.1:{origin.port}:shop", options=options
    )
    await client.wait_event("attached")
    return client


@pytest.mark.parametrize("release", ["0.3.6", "0.4.10", "0.7.8", "0.8.2"])
@pytest.mark.parametrize("protocol", ["http", "https"])
async def test_a_page_comes_through_a_tunnel_of_every_release(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str, protocol: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", release, protocol=protocol)

    pages = [await site.curl(HOST, "/?a=1", tls=tls) for tls in (False, True)]

    assert [(page.exit_code, page.text) for page in pages] == [(0, "hello a=1")] * 2
    port = site.https_port if protocol == "https" else site.http_port
    assert client.events("registered")[0]["public_url"] == f"{protocol}://{HOST}:{port}"
    assert client.events("connected")[0]["groups"] is False
    assert client.violations == []


async def test_the_service_sees_who_visits(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    await start_shop(stack, site, origin)

    page = await site.curl(HOST, "/headers", tls=True)

    headers = json.loads(page.out)
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"


async def test_many_requests_share_one_stream_and_one_local_connection(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--trace")

    async with await Visitor.connect(site.http_port) as visitor:
        for number in range(50):
            assert (await visitor.get(HOST, f"/?{number}")).body == b"hello %d" % number

    assert len(client.events("stream_opened")) == 1
    assert [event["protocol"] for event in client.events("new_connection")] == ["http"]
    assert client.violations == []


async def test_a_websocket_passes(site: Site, origin: WebOrigin, stack: AsyncExitStack) -> None:
    await site.start_server()
    await start_shop(stack, site, origin)

    async with (
        asyncio.timeout(STEP_SECONDS),
        connect(
            f"ws://{HOST}:{site.http_port}/socket",
            host="127.0.0.1",
            port=site.http_port,
            max_size=None,
            proxy=None,
        ) as socket,
    ):
        for message in ("hello", PATTERN * 32, "last"):
            await socket.send(message)
            assert await socket.recv() == message


async def test_tcp_bytes_pass_and_half_close_keeps_the_other_direction(
    site: Site, stack: AsyncExitStack
) -> None:
    async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = await reader.read()
        writer.write(hashlib.sha256(content).hexdigest().encode())

    await site.start_server()
    async with RawOrigin(at_the_end) as service:
        client = await start_rustunnel(stack, site, f"tcp:127.0.0.1:{service.port}")
        registered = await client.wait_event("registered")
        port = registered["assigned_port"]
        async with await Visitor.connect(port) as visitor:
            visitor.send(PATTERN * 16)
            visitor.writer.write_eof()
            answer = await visitor.read_to_end()

    assert registered["public_url"] == f"tcp://localhost:{port}"
    assert answer.decode() == hashlib.sha256(PATTERN * 16).hexdigest()
    assert client.violations == []


async def test_a_service_that_is_not_there_is_a_502_at_once(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    await start_shop(stack, site, origin, "--refuse")

    async with asyncio.timeout(STEP_SECONDS):
        page = await site.curl(HOST, "/", "-D", "-")

    assert page.text.startswith("HTTP/1.1 502")
    assert "x-moleport-error: upstream-refused" in page.text


async def test_an_answer_that_is_reset_half_way_never_looks_complete(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    await start_shop(stack, site, origin, "--reset-after", "20000")

    page = await site.curl(HOST, "/size/1000000")

    assert page.exit_code != 0
    assert len(page.out) < 1_000_000


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("udp", "unsupported protocol 'udp': this server forwards http, https and tcp"),
        ("p2p", "P2P tunnels are not enabled on this server"),
    ],
)
async def test_what_is_not_forwarded_is_said(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, protocol: str, text: str
) -> None:
    await site.start_server()
    client = await start_rustunnel(
        stack,
        site,
        f"{protocol}:127.0.0.1:{origin.port}",
        options=("--release", "0.8.2", "--no-reconnect"),
    )

    assert (await client.wait_event("error"))["text"] == f"tunnel error: {text}"
    assert await client.wait_exit() == 1


# REST


async def test_rest_shows_the_tunnel_the_session_and_what_passed(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, protocol="https")
    registered = client.events("registered")[0]
    for _ in range(3):
        assert (await site.curl(HOST, "/?seen")).exit_code == 0

    [tunnel] = await site.api("GET", "/api/tunnels")
    [session] = await site.api("GET", "/api/sessions")
    captures = await site.api("GET", f"/api/tunnels/{tunnel['tunnel_id']}/requests")
    history = await site.api("GET", "/api/history")

    assert tunnel["tunnel_id"] == registered["tunnel_id"]
    assert (tunnel["protocol"], tunnel["label"], tunnel["request_count"]) == ("http", HOST, 3)
    assert session["protocol"] == "rustunnel"
    assert session["agent"] == "rustunnel/0.3.6"
    assert session["connections"] == 2
    assert session["tunnel_ids"] == [tunnel["tunnel_id"]]
    assert [(c["method"], c["path"], c["status"]) for c in captures] == [("GET", "/?seen", 200)] * 3
    assert history["entries"][0]["tunnel_id"] == tunnel["tunnel_id"]


async def test_the_other_family_shows_the_tunnels_and_ends_the_client(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_rustunnel(
        stack, site, f"http:127.0.0.1:{origin.port}:shop", f"tcp:127.0.0.1:{origin.port}"
    )
    await client.wait_event("attached")
    port = client.events("registered")[1]["assigned_port"]
    assert (await site.curl(HOST, "/")).exit_code == 0

    [session] = (await site.api("GET", "/api/v1/tunnel/sessions"))["sessions"]
    [row] = (await site.api("GET", "/api/v1/tunnel/tunnels"))["sessions"]

    assert (session["isV2"], session["activeStreams"]) == (False, 1)
    assert [(b["containerPort"], b["kind"]) for b in session["bindings"]] == [
        (0, "EXPOSE"),
        (port, "EXPOSE"),
    ]
    assert (row["protocol"], len(row["exposeBindings"]), row["pullBindings"]) == (
        "rustunnel",
        2,
        [],
    )

    await site.api("DELETE", f"/api/v1/tunnel/sessions/{session['sessionId']}")
    assert await client.wait_exit() == 0
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            history = await site.api("GET", "/api/history?active=false")
            if history["total"] == 2:
                break


async def test_the_id_that_people_see_opens_no_data_channel(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin)
    [session] = await site.api("GET", "/api/sessions")
    secret = client.events("connected")[0]["session_id"]

    refused = await client.ask(
        "open-data", f"/_data/{session['session_id']}", answer="extra_data_refused"
    )

    assert refused["status"] == 404
    assert secret != session["session_id"]
    assert secret not in site.server.output


@pytest.mark.parametrize("release", ["0.3.6", "0.8.2"])
@pytest.mark.parametrize("what", ["session", "tunnel"])
async def test_deleting_the_session_or_its_last_tunnel_ends_the_client_for_good(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str, what: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", release)
    [session] = await site.api("GET", "/api/sessions")
    path = {
        "session": f"/api/sessions/{session['session_id']}",
        "tunnel": f"/api/tunnels/{session['tunnel_ids'][0]}",
    }[what]

    await site.api("DELETE", path)

    assert await client.wait_exit() == 0
    assert client.events("control_closed")[0]["how"] == "closed"
    assert client.events("reconnecting") == []
    assert (await site.curl(HOST, "/", "-D", "-")).text.startswith("HTTP/1.1 404")
    assert await site.api("GET", "/api/sessions") == []


async def test_deleting_one_of_several_tunnels_leaves_the_others(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    async with RawOrigin(echo) as service:
        client = await start_rustunnel(
            stack,
            site,
            f"http:127.0.0.1:{origin.port}:shop",
            f"tcp:127.0.0.1:{service.port}",
        )
        await client.wait_event("attached")
        first, second = client.events("registered")

        await site.api("DELETE", f"/api/tunnels/{first['tunnel_id']}")

        assert (await site.curl(HOST, "/", "-D", "-")).text.startswith("HTTP/1.1 404")
        async with await Visitor.connect(second["assigned_port"]) as visitor:
            visitor.send(b"ping")
            async with asyncio.timeout(STEP_SECONDS):
                assert await visitor.reader.readexactly(4) == b"ping"
        assert client.exit_code is None


async def test_a_deleted_token_ends_its_clients_for_good(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    token = await site.api("POST", "/api/tokens", {"label": "laptop"})
    secret = site.directory / "token"
    secret.write_text(token["token"])
    client = await start_rustunnel(
        stack,
        site,
        f"http:127.0.0.1:{origin.port}:shop",
        options=("--token-file", secret),
    )
    await client.wait_event("attached")

    await site.api("DELETE", f"/api/tokens/{token['id']}")

    assert await client.wait_exit() == 0
    assert client.events("reconnecting") == []
