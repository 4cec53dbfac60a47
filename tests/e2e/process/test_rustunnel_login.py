"""What a stock rustunnel client is answered until it has its tunnels, and how garbage ends.

Rows of the family's tables: what the server does with each first message, with messages that make no
sense, and with data channels that nobody may open. The client is a double (`helpers.doubles`).
"""

import json
import signal
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from helpers.doubles.process import Double, start_rustunnel
from helpers.origins import WebOrigin
from helpers.site import Site

HOST = "shop.localhost"
SENSELESS = (
    "text",
    "malformed",
    "unknown",
    "empty",
    "second-auth",
    "server-frames",
    "stream-open",
    "bad-ping",
    "unregister-foreign",
    "deep",
    "huge 70000",
)


async def start_shop(
    stack: AsyncExitStack, site: Site, origin: WebOrigin, *options: str | Path, name: str = "shop"
) -> Double:
    return await start_rustunnel(
        stack, site, f"http:127.0.0.1:{origin.port}:{name}", options=options
    )


def write_token(site: Site, text: str) -> Path:
    path = site.directory / "token"
    path.write_text(text)
    return path


async def test_a_first_message_that_is_no_login_is_told_so_or_dropped(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    texts = {}

    async def begin_with(first_frame: str) -> None:
        options = ("--first-frame", first_frame, "--no-reconnect")
        client = await start_shop(stack, site, origin, *options)
        texts[first_frame] = (await client.wait_event("error"))["text"]

    # Longer than the test waits for an event: only silence is waited for.
    await site.start_server("limits.first_frame_seconds=60")
    for first_frame in ("register", "garbage", "empty", "unknown", "text"):
        await begin_with(first_frame)
    await site.server.kill()
    await site.start_server("limits.first_frame_seconds=2")
    await begin_with("silence")

    assert texts.pop("register") == "auth failed: expected Auth frame"
    # Cut or reset, as the kernel decides, and never closed: a client that was dropped comes back.
    assert all(
        text.startswith("connection error: control connection ended: ") and "closed" not in text
        for text in texts.values()
    ), texts
    assert await site.api("GET", "/api/sessions") == []


@pytest.mark.parametrize("release", ["0.3.6", "0.8.2"])
@pytest.mark.parametrize("token", ["wrong", ""])
async def test_a_wrong_token_is_final_for_every_release(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, release: str, token: str
) -> None:
    await site.start_server()
    client = await start_shop(
        stack, site, origin, "--token-file", write_token(site, token), "--release", release
    )

    assert (await client.wait_event("error"))["text"] == "auth failed: invalid token"
    assert await client.wait_exit() == (0 if release == "0.3.6" else 1)
    assert client.events("reconnecting") == []


async def test_a_name_that_is_none_is_refused_in_the_words_of_the_family(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    for name, text in (
        ("ab", "subdomain 'ab' must be 3–63 characters long"),
        ("-abc", "subdomain '-abc' must not start or end with a hyphen"),
        ("a_b", "subdomain 'a_b' may only contain letters, digits, and hyphens"),
    ):
        client = await start_shop(stack, site, origin, "--no-reconnect", name=name)
        assert (await client.wait_event("error"))["text"] == f"tunnel error: tunnel error: {text}"


async def test_upper_case_is_taken_for_lower_case(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, name="Shop")
    await client.wait_event("attached")

    assert (await site.curl(HOST, "/")).text == "hello "


async def test_a_token_keeps_clients_to_its_scope_and_limits(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("limits.tunnels_per_session=1")
    token = await site.api("POST", "/api/tokens", {"label": "ci", "scope": "ci-*"})
    secret = write_token(site, token["token"])

    outside = await start_shop(stack, site, origin, "--token-file", secret, "--no-reconnect")
    too_many = await start_rustunnel(
        stack,
        site,
        f"http:127.0.0.1:{origin.port}:one",
        f"http:127.0.0.1:{origin.port}:two",
        options=("--no-reconnect",),
    )

    text = (await outside.wait_event("error"))["text"]
    assert text.startswith("tunnel error: tunnel error: token 'ci' may not bind host name")
    text = (await too_many.wait_event("error"))["text"]
    assert text.startswith("tunnel error: limit exceeded: session ")
    assert text.endswith(" already has 1 tunnels (max 1)")


async def test_no_tcp_port_is_left(site: Site, origin: WebOrigin, stack: AsyncExitStack) -> None:
    await site.start_server(f"listen.tcp_ports={site.tcp_port}-{site.tcp_port}")
    tunnel = f"tcp:127.0.0.1:{origin.port}"
    client = await start_rustunnel(stack, site, tunnel, tunnel, options=("--no-reconnect",))

    assert (await client.wait_event("error"))["text"] == "tunnel error: no TCP ports available"


async def test_messages_without_sense_are_ignored(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--heartbeat-seconds", "0.1")
    await client.wait_event("attached")

    for kind in SENSELESS:
        client.command("control", *kind.split())
        for _ in range(2):  # the first answer may have been under way
            await client.wait_event("pong", since=len(client.lines))
        assert client.events("control_closed") == [], kind

    assert (await site.curl(HOST, "/")).text == "hello "
    assert len(client.events("connected")) == 1
    assert client.violations == []


@pytest.mark.parametrize("kind", ["noise 100", "huge 40000000"])
async def test_what_is_no_websocket_ends_the_session_and_the_client_comes_back(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, kind: str
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin)
    await client.wait_event("attached")

    seen = len(client.lines)
    client.command("control", *kind.split())

    await client.wait_event("attached", since=seen)
    assert (await site.curl(HOST, "/")).text == "hello "
    assert len(await site.api("GET", "/api/sessions")) == 1
    assert site.server.resident_bytes < 200 << 20


async def test_a_tunnel_that_its_client_gives_back_is_gone(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--heartbeat-seconds", "0.2")
    await client.wait_event("attached")

    client.command("control", "unregister")
    await client.wait_event("pong", since=len(client.lines))
    await client.wait_event("pong", since=len(client.lines))

    assert (await site.curl(HOST, "/", "-D", "-")).text.startswith("HTTP/1.1 404")
    assert client.exit_code is None


async def test_one_place_before_the_login_is_enough_for_one_client(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server("limits.connections_per_address_before_auth=1")
    client = await start_shop(stack, site, origin)
    await client.wait_event("attached")

    assert client.events("reconnecting") == []
    assert (await site.curl(HOST, "/")).text == "hello "


async def test_an_unknown_data_channel_is_refused_before_the_upgrade(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin)
    await client.wait_event("attached")

    for path in (f"/_data/{uuid4()}", "/_data/shop", "/_data/", "/_data", "/_other"):
        refused = await client.ask("open-data", path, answer="extra_data_refused")
        assert refused["status"] == 404, path


async def test_the_newest_of_two_data_channels_has_the_streams(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    client = await start_shop(stack, site, origin, "--release", "0.7.8")
    await client.wait_event("attached")

    # The second is only held open; the first is ended, and attached again as the newest.
    seen = len(client.lines)
    await client.ask("open-data", "same", answer="extra_data_attached")
    await client.wait_event("data_closed", since=seen)
    await client.wait_event("attached", since=seen)
    await client.wait_event("extra_data_closed", since=seen)

    assert (await site.curl(HOST, "/")).text == "hello "


@pytest.mark.parametrize("moment", ["connected", "authenticated", "registered", "attached"])
async def test_a_client_that_vanishes_leaves_nothing_but_its_lease(
    site: Site, origin: WebOrigin, stack: AsyncExitStack, moment: str
) -> None:
    await site.start_server("limits.first_frame_seconds=3")
    for _ in range(3):
        client = await start_shop(stack, site, origin, "--vanish-at", moment)
        assert await client.wait_exit() == 9

    client = await start_shop(stack, site, origin)
    await client.wait_event("attached")

    assert (await site.curl(HOST, "/")).text == "hello "
    assert len(await site.api("GET", "/api/sessions")) == 1
    assert len(await site.api("GET", "/api/tunnels")) == 1


async def test_the_audit_log_tells_logins_and_tunnels_and_no_secret(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    audit = site.directory / "audit.jsonl"
    await site.start_server(f"log.audit_file={audit}", "server.drain_delay_seconds=0")
    token = await site.api("POST", "/api/tokens", {"label": "laptop"})
    secret = write_token(site, token["token"])
    good = await start_shop(stack, site, origin, "--token-file", secret)
    await good.wait_event("attached")
    wrong = site.directory / "wrong"
    wrong.write_text("guess-of-a-stranger")
    bad = await start_shop(stack, site, origin, "--token-file", wrong)
    await bad.wait_exit()
    await site.api("DELETE", f"/api/tokens/{token['id']}")
    await good.wait_exit()
    site.server.send_signal(signal.SIGTERM)
    await site.server.wait_exit()

    text = audit.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    events: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        datetime.fromisoformat(line.pop("ts"))
        events.setdefault(line.pop("event"), []).append(line)
    peer = events["auth_attempt"][0].pop("peer")
    assert peer.startswith("127.0.0.1:")
    assert events["auth_attempt"][0] == {"success": True, "token_id": token["id"]}
    assert events["auth_attempt"][1]["success"] is False
    assert [line["label"] for line in events["tunnel_registered"]] == [HOST]
    assert events["token_created"] == [{"token_id": token["id"], "label": "laptop", "admin": True}]
    assert events["token_deleted"] == [{"token_id": token["id"], "admin": True}]
    assert token["token"] not in text
    assert "guess" not in text
    assert audit.stat().st_mode & 0o777 == 0o600
