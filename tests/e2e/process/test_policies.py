"""Tokens and policies over REST, and what live sessions and visitors see of a change at once."""

import asyncio
import contextlib
import hashlib
import json
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
import pytest

from helpers.doubles.process import start_hoody, start_rustunnel
from helpers.origins import RawOrigin, WebOrigin
from helpers.processes import Agent
from helpers.site import Site
from helpers.visits import Visitor

HOST = "shop.localhost"
TOKEN_ID = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c0001"
POLICY_ID = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c00aa"
OTHER_ID = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c00ab"
TOKEN = f"/api/tokens/{TOKEN_ID}"
POLICY = f"/api/policies/{POLICY_ID}"
SECONDS = 20.0


def htpasswd(user: str, password: str) -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await check():
            await asyncio.sleep(0.02)


async def put_token(site: Site, *revisions: int, **wish: Any) -> str:
    """Put a token with a policy that restricts nothing yet; return the file of its last secret."""
    await site.api("PUT", POLICY, {})
    await site.api("PUT", TOKEN, {"label": "ci", "policy_ids": [POLICY_ID]} | wish)
    path = site.directory / "token"
    for revision in revisions or (1,):
        path = site.directory / f"token-{revision}"
        path.write_text(f"secret-{revision}\n")
        digest = hashlib.sha256(f"secret-{revision}".encode()).hexdigest()
        await site.api("PUT", f"{TOKEN}/credentials/{revision}", {"sha256": digest})
    return str(path)


async def http_agent(site: Site, origin: WebOrigin, *arguments: str, **wish: Any) -> Agent:
    await site.start_server()
    token = await put_token(site, **wish)
    return await site.start_agent(
        "http", str(origin.port), "--name", "shop", "--token-file", token, *arguments
    )


async def status(site: Site, *options: str, path: str = "/", tls: bool = False) -> str:
    curl = await site.curl(HOST, path, "-o", "/dev/null", "-w", "%{http_code}", *options, tls=tls)
    return curl.text


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"access": {"client_cidrs": ["192.0.2.0/24"]}}, "address-denied"),
        ({"access": {"denied_client_cidrs": ["127.0.0.0/8"]}}, "address-denied"),
        ({"http": {"require_tls": True}}, "tls-required"),
        ({"http": {"auth": {"basic": {"htpasswd": htpasswd("ann", "open")}}}}, "auth-required"),
        ({"http": {"auth": {"basic": {"htpasswd": None}}}}, "http-denied"),
    ],
    ids=["client networks", "denied networks", "TLS", "password", "password that nobody knows"],
)
async def test_a_changed_policy_turns_the_next_visitor_away(
    site: Site, origin: WebOrigin, policy: dict[str, Any], code: str
) -> None:
    await http_agent(site, origin)
    before = await status(site)

    await site.api("PUT", POLICY, policy)
    refused = await site.curl(HOST, "/", "-D", "-")
    await site.api("PUT", POLICY, {})

    assert f"x-moleport-error: {code}" in refused.text.lower()
    assert (before, await status(site)) == ("200", "200")


async def test_visitors_pass_by_tls_and_with_the_policys_password(
    site: Site, origin: WebOrigin
) -> None:
    await http_agent(site, origin)
    auth = {"basic": {"htpasswd": htpasswd("ann", "open")}}
    await site.api("PUT", POLICY, {"http": {"require_tls": True, "auth": auth}})

    assert await status(site, "-u", "ann:open", tls=True) == "200"
    assert await status(site, "-u", "ann:open") == "403"
    assert await status(site, "-u", "ann:wrong", tls=True) == "401"
    # The password is the policy's, not for the service behind the tunnel.
    seen = await site.curl(HOST, "/headers", "-u", "ann:open", tls=True)
    assert "authorization" not in json.loads(seen.out)


async def test_a_trusted_proxy_may_say_that_tls_ended_there(site: Site, origin: WebOrigin) -> None:
    await site.start_server("proxy.trusted=127.0.0.0/8")
    token = await put_token(site)
    await site.start_agent("http", str(origin.port), "--name", "shop", "--token-file", token)
    await site.api("PUT", POLICY, {"http": {"require_tls": True}})

    assert await status(site, "-H", "X-Forwarded-Proto: https") == "200"
    assert await status(site, "-H", "X-Forwarded-Proto: http") == "403"
    assert await status(site) == "403"


async def test_two_different_passwords_close_http(site: Site, origin: WebOrigin) -> None:
    await http_agent(site, origin)
    for policy_id, user in ((POLICY_ID, "ann"), (OTHER_ID, "bob")):
        auth = {"basic": {"htpasswd": htpasswd(user, "open")}}
        await site.api("PUT", f"/api/policies/{policy_id}", {"http": {"auth": auth}})
    assert await status(site, "-u", "ann:open") == "200"

    wish = {"label": "ci", "policy_ids": [POLICY_ID, OTHER_ID]}
    changed = await site.api("PUT", TOKEN, wish)

    assert "different passwords" in changed["effective"]["http"]["denied"]
    assert await status(site, "-u", "ann:open") == "403"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"access": {"hostnames": ["till"]}}, "may not bind host name 'shop.localhost'"),
        ({"access": {"protocols": ["tcp"]}}, "may not use protocol http"),
        ({"access": {"agent_cidrs": ["192.0.2.0/24"]}}, "may not be used from 127.0.0.1"),
        ({"limits": {"max_tunnels_per_token": 0}}, "may have 0 tunnels at a time"),
    ],
    ids=["host names", "protocols", "agent networks", "tunnels"],
)
async def test_a_changed_policy_takes_the_tunnel_and_says_why(
    site: Site, origin: WebOrigin, policy: dict[str, Any], says: str
) -> None:
    agent = await http_agent(site, origin)
    assert await status(site) == "200"

    await site.api("PUT", POLICY, policy)

    assert await status(site) == "404"

    async def was_told() -> bool:
        return says in str(agent)

    await eventually(was_told)


async def test_a_changed_policy_takes_a_tcp_port(site: Site) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()

    await site.start_server()
    token = await put_token(site)
    async with RawOrigin(greet) as service:
        arguments = ("tcp", str(service.port), "--port", str(site.tcp_port))
        await site.start_agent(*arguments, "--token-file", token)
        async with await Visitor.connect(site.tcp_port) as visitor:
            assert await visitor.reader.readexactly(5) == b"hello"

            ports = [{"start": site.tcp_port + 1, "end": site.tcp_port + 9}]
            await site.api("PUT", POLICY, {"access": {"tcp_ports": ports}})

            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(SECONDS):
                    assert await visitor.reader.read() == b""
        assert await site.api("GET", "/api/tunnels") == []


async def test_requests_keep_to_the_rate_of_the_policy(site: Site, origin: WebOrigin) -> None:
    await http_agent(site, origin)

    await site.api("PUT", POLICY, {"limits": {"requests_per_second": 0.01, "burst": 2}})
    answers = [await status(site) for _ in range(3)]

    assert answers == ["200", "200", "429"]
    assert 'rate_limited_total{limit="token_requests"} 1.0' in await site.metrics()


async def test_bodies_keep_to_the_size_of_the_policy(site: Site, origin: WebOrigin) -> None:
    await http_agent(site, origin)
    await site.api("PUT", POLICY, {"limits": {"request_body_bytes": 10}})

    assert await status(site, "--data", "0123456789", path="/echo") == "200"
    assert await status(site, "--data", "0123456789a", path="/echo") == "413"
    chunked = ("--data", "0123456789a", "-H", "Transfer-Encoding: chunked")
    assert await status(site, *chunked, path="/echo") == "413"


@pytest.mark.parametrize("where", ["token", "policy"])
async def test_connections_in_flight_are_limited(site: Site, origin: WebOrigin, where: str) -> None:
    await http_agent(site, origin)
    if where == "token":
        limited = {"label": "ci", "policy_ids": [POLICY_ID], "limits": {"max_connections": 1}}
        await site.api("PUT", TOKEN, limited)
    else:
        await site.api("PUT", POLICY, {"limits": {"max_connections_per_tunnel": 1}})

    async with await Visitor.connect(site.http_port) as first:
        # Its body never comes: the request stays in flight.
        head = f"POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\n"
        first.writer.write(head.encode())

        async def is_in_flight() -> bool:
            usage = (await site.api("GET", TOKEN))["usage"]
            return bool(usage["active_connections"] == 1)

        await eventually(is_in_flight)
        assert await status(site) == "503"
    await eventually(lambda: _is(status(site), "200"))


async def _is(actual: Awaitable[str], wanted: str) -> bool:
    return await actual == wanted


@pytest.mark.parametrize("is_late", [False, True], ids=["before it began", "while it runs"])
async def test_a_download_keeps_to_the_bandwidth(site: Site, is_late: bool) -> None:
    size, rate = 400_000, 200_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        for _ in range(size // 10_000):
            writer.write(b"x" * 10_000)
            await writer.drain()
        writer.write_eof()

    await site.start_server()
    token = await put_token(site)
    limits = {"limits": {"bandwidth": rate}}
    async with RawOrigin(serve) as service:
        arguments = ("tcp", str(service.port), "--port", str(site.tcp_port))
        await site.start_agent(*arguments, "--token-file", token)
        if not is_late:
            await site.api("PUT", POLICY, limits)
        async with await Visitor.connect(site.tcp_port) as visitor:
            if is_late:
                await site.api("PUT", POLICY, limits)
            started = time.monotonic()
            visitor.writer.write(b"x")
            async with asyncio.timeout(SECONDS):
                content = await visitor.reader.read(-1)
            seconds = time.monotonic() - started

    # What fits into the burst passes at once; so does a little that was on its way.
    assert len(content) == size
    assert 1.0 < seconds < 10.0


async def test_a_silent_connection_ends_after_the_idle_timeout(site: Site) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await site.start_server()
    token = await put_token(site)
    async with RawOrigin(wait) as service:
        arguments = ("tcp", str(service.port), "--port", str(site.tcp_port))
        await site.start_agent(*arguments, "--token-file", token)
        async with await Visitor.connect(site.tcp_port) as visitor:
            visitor.writer.write(b"x")
            await site.api("PUT", POLICY, {"limits": {"idle_timeout": 1}})

            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(SECONDS):
                    assert await visitor.reader.read() == b""


async def test_a_suspended_token_is_cut_off_until_it_is_not(site: Site, origin: WebOrigin) -> None:
    agent = await http_agent(site, origin)
    wish = {"label": "ci", "policy_ids": [POLICY_ID]}

    await site.api("PUT", TOKEN, {**wish, "suspended": True})

    assert await status(site) == "404"

    async def was_told() -> bool:
        return "suspended" in str(agent)

    await eventually(was_told)
    await site.api("PUT", TOKEN, wish)
    await site.start_agent(
        "http", str(origin.port), "--name", "shop", "--token-file", str(site.directory / "token-1")
    )
    assert await status(site) == "200"


@pytest.mark.parametrize("how", ["deleted", "not_after"])
async def test_a_revision_that_ends_takes_its_sessions_only(
    site: Site, origin: WebOrigin, how: str
) -> None:
    await site.start_server()
    await put_token(site, 1, 2)
    agents = [
        await site.start_agent(
            *("http", str(origin.port), "--name", f"shop-{revision}"),
            *("--token-file", str(site.directory / f"token-{revision}")),
        )
        for revision in (1, 2)
    ]
    names = [f"shop-{revision}.localhost" for revision in (1, 2)]

    slot = f"{TOKEN}/credentials/1"
    if how == "deleted":
        await site.api("DELETE", slot)
    else:
        digest = hashlib.sha256(b"secret-1").hexdigest()
        await site.api("PUT", slot, {"sha256": digest, "not_after": "2020-01-01T00:00:00Z"})

    async def open_names() -> list[str]:
        return [row["label"] for row in await site.api("GET", "/api/tunnels")]

    assert await open_names() == [names[1]]
    assert (await site.curl(names[1], "/")).text == "hello "
    assert agents[1].exit_code is None


async def test_a_token_that_expires_ends_within_a_moment(site: Site, origin: WebOrigin) -> None:
    agent = await http_agent(site, origin)
    assert await status(site) == "200"
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    wish = {"label": "ci", "policy_ids": [POLICY_ID], "expires_at": soon}
    await site.api("PUT", TOKEN, wish)

    await eventually(lambda: _is(status(site), "404"))

    async def was_told() -> bool:
        return "expired" in str(agent)

    await eventually(was_told)


async def test_rules_survive_a_restart_of_the_server(site: Site, origin: WebOrigin) -> None:
    await http_agent(site, origin)
    await site.api("PUT", POLICY, {"access": {"denied_client_cidrs": ["127.0.0.0/8"]}})

    site.server.send_signal(signal.SIGTERM)
    await site.server.wait_exit()
    await site.start_server()

    # The agent may not be back yet: the rule holds for visitors of the leased name as well.
    assert await status(site) == "403"


async def test_live_sessions_of_stock_clients_keep_to_changed_rules_as_well(
    site: Site, origin: WebOrigin, stack: AsyncExitStack
) -> None:
    await site.start_server()
    token = await put_token(site)
    mine = ("--token-file", token)
    rustunnel = await start_rustunnel(
        stack, site, f"http:127.0.0.1:{origin.port}:shop", options=mine
    )
    await rustunnel.wait_event("attached")
    expose = ("--expose", f"0:127.0.0.1:{origin.port}")
    hoody = await start_hoody(stack, site, "--generation", "new", *expose, *mine)
    port = int((await hoody.wait_event("bound"))["container_port"])

    async def both() -> list[str]:
        options = ("-o", "/dev/null", "-w", "%{http_code}")
        other = await site.run_curl(*options, f"http://127.0.0.1:{port}/")
        return [await status(site), other.text]

    assert await both() == ["200", "200"]
    await site.api("PUT", POLICY, {"access": {"denied_client_cidrs": ["127.0.0.0/8"]}})
    assert await both() == ["403", "403"]
    await site.api("PUT", POLICY, {"http": {"auth": {"basic": {"htpasswd": None}}}})
    assert await both() == ["403", "403"]
    await site.api("PUT", POLICY, {})
    assert await both() == ["200", "200"]

    # What the grant does not have any more is taken at once; a suspension ends the sessions.
    await site.api("PUT", POLICY, {"access": {"protocols": ["tcp"]}})
    assert (await both())[0] == "404"
    await site.api("PUT", TOKEN, {"label": "ci", "policy_ids": [POLICY_ID], "suspended": True})

    async def are_gone() -> bool:
        return not await site.api("GET", "/api/sessions")

    await eventually(are_gone)
    assert "200" not in await both()
    assert rustunnel.violations == hoody.violations == []
