"""The REST API as a user meets it with curl, and what must never show a secret."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.origins import WebOrigin
from helpers.processes import Agent
from helpers.site import Site

HOST = "shop.localhost"
CANARY = "canary-7d1f0c9b"
STEP_SECONDS = 20.0


async def call(
    site: Site, method: str, path: str, *options: str, token: str | None = None
) -> tuple[int, Any]:
    """Call the API with curl; returns status and JSON."""
    page = await site.curl_api(method, path, "-w", "\n%{http_code}", *options, token=token)
    assert page.exit_code == 0, page.err
    body, _, status = page.text.rpartition("\n")
    return int(status), json.loads(body) if body else None


async def start_with(site: Site, secret: str, origin: WebOrigin, name: str = "shop") -> Agent:
    path = site.directory / f"token-{name}"
    path.write_text(secret)
    return await site.start_agent(
        "http", str(origin.port), "--name", name, "--token-file", str(path)
    )


async def tunnel_id(site: Site) -> str:
    _, rows = await call(site, "GET", "/api/tunnels")
    found: str = rows[0]["tunnel_id"]
    return found


async def test_a_token_lives_from_its_creation_to_its_deletion(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()

    status, created = await call(
        site, "POST", "/api/tokens", "--json", '{"label":"ann","scope":"shop"}'
    )
    assert status == 201
    agent = await start_with(site, created["token"], origin)
    status, rows = await call(site, "GET", "/api/tokens")
    assert (rows[0]["label"], rows[0]["scope"], rows[0]["tunnel_count"]) == ("ann", "shop", 1)
    assert created["token"] not in json.dumps(rows)

    status, _ = await call(site, "DELETE", f"/api/tokens/{created['id']}")
    assert status == 204
    gone = await agent.wait_event("disconnected")
    assert "token deleted" in gone["reason"]
    page = await site.curl(HOST, "/", "-o", "/dev/null", "-w", "%{http_code}")
    assert page.text == "404"
    assert (await call(site, "DELETE", f"/api/tokens/{created['id']}"))[0] == 404


async def test_the_scope_is_enforced_at_bind_and_tokens_see_what_is_theirs(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    _, ann = await call(site, "POST", "/api/tokens", "--json", '{"label":"ann","scope":"a-*"}')
    _, bob = await call(site, "POST", "/api/tokens", "--json", '{"label":"bob"}')
    await start_with(site, ann["token"], origin, "a-shop")

    outside = await site.launch_agent(
        *("http", str(origin.port), "--name", "b-shop"),
        *("--token-file", str(site.directory / "token-a-shop")),
    )
    assert (await outside.wait_event("tunnel_refused"))["is_final"]
    of_ann = (await call(site, "GET", "/api/tunnels", token=ann["token"]))[1]
    of_bob = (await call(site, "GET", "/api/tunnels", token=bob["token"]))[1]
    assert [row["label"] for row in of_ann] == ["a-shop.localhost"]
    assert of_bob == []
    status, refusal = await call(site, "GET", "/api/tokens", token=bob["token"])
    assert (status, refusal["error"]) == (403, "admin token required")
    assert (await call(site, "GET", "/api/tunnels", token="no-such-token"))[0] == 401


async def test_requests_are_captured_masked_and_can_be_sent_again(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    await start_with(site, site.admin_token, origin)
    await site.curl(HOST, f"/echo?token={CANARY}&x=1", "-d", "a body", "-H", f"Cookie: id={CANARY}")
    tunnel = await tunnel_id(site)

    _, rows = await call(site, "GET", f"/api/tunnels/{tunnel}/requests")
    assert (rows[0]["method"], rows[0]["status"]) == ("POST", 200)
    assert rows[0]["path"].startswith("/echo?token=")
    assert rows[0]["response_bytes"] == len("a body")
    assert CANARY not in json.dumps(rows)

    status, shown = await call(site, "POST", f"/api/tunnels/{tunnel}/replay/{rows[0]['id']}")
    assert status == 200
    assert origin.seen["POST /echo"] == 1
    status, sent = await call(
        site, "POST", f"/api/tunnels/{tunnel}/replay/{rows[0]['id']}?send=true"
    )
    assert (status, sent["status"], sent["response_body"]) == (200, 200, "a body")
    assert origin.seen["POST /echo"] == 2
    assert CANARY not in json.dumps([shown, sent])


async def test_a_closed_tunnel_tells_its_agent_and_closes_its_history(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await start_with(site, site.admin_token, origin)
    tunnel = await tunnel_id(site)

    status, _ = await call(site, "DELETE", f"/api/tunnels/{tunnel}")

    assert status == 204
    assert (await agent.wait_event("tunnel_closed"))["name"] == "shop"
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            history = (await call(site, "GET", "/api/history"))[1]
            if history["entries"][0]["unregistered_at"]:
                break
    assert history["total"] == 1
    assert history["entries"][0]["tunnel_id"] == tunnel


async def test_events_come_live_and_resume_where_they_were_cut(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    await start_with(site, site.admin_token, origin)
    headers = {"Authorization": f"Bearer {site.admin_token}"}
    url = f"http://127.0.0.1:{site.api_port}/api/events"
    last = ""
    async with asyncio.timeout(STEP_SECONDS), httpx.AsyncClient(trust_env=False) as client:
        async with client.stream("GET", url, headers=headers) as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith(":")
            await site.curl(HOST, "/?first")
            async for line in lines:
                if line.startswith("id:"):
                    last = line[3:].strip()
                if line.startswith("data:") and "/?first" in line:
                    break
        await site.curl(HOST, "/?second")
        again = {**headers, "Last-Event-ID": last}
        async with client.stream("GET", url, headers=again) as stream:
            async for line in stream.aiter_lines():
                assert "/?first" not in line
                if line.startswith("data:") and "/?second" in line:
                    break


async def test_the_document_describes_the_calls_and_needs_no_network(site: Site) -> None:
    await site.start_server()

    status, document = await call(site, "GET", "/api/openapi.json")

    assert status == 200
    assert document["openapi"].startswith("3.1")
    assert {"/api/tokens", "/api/tunnels", "/api/events", "/api/sessions"} <= set(document["paths"])


async def test_the_commands_work_on_the_same_api(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    await start_with(site, site.admin_token, origin)
    await site.curl(HOST, "/?by-command")

    outputs = {}
    for words in ("list", "status", "requests --no-follow", "token list", "doctor"):
        running = await site.run("moleport", *words.split(), "--json")
        assert await running.wait_exit() == 0, running.output
        outputs[words] = running.output
    assert HOST in outputs["list"]
    assert "/?by-command" in outputs["requests --no-follow"]


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_secret_never_shows_where_others_look(
    site: Site, origin: WebOrigin, level: str
) -> None:
    server = await site.start_server(f"log.level={level}", "log.access=text")
    (site.directory / "users").write_text(f"ann:{CANARY}\n")
    _, created = await call(site, "POST", "/api/tokens", "--json", '{"label":"ann"}')
    secret = site.directory / "secret"
    secret.write_text(created["token"])
    agent = await site.launch_agent(
        *("http", str(origin.port), "--name", "shop", "--token-file", str(secret)),
        *("--basic-auth-file", str(site.directory / "users")),
    )
    await agent.wait_opened()
    page = await site.curl(
        HOST, f"/?password={CANARY}", "-u", f"ann:{CANARY}", "-H", f"Cookie: {CANARY}"
    )
    assert page.exit_code == 0
    await site.curl(HOST, f"/?access_token={CANARY}", "-u", f"eve:{CANARY}")
    await agent.wait_event("request_seen")

    shown = {
        "server": server.output,
        "agent": agent.output,
        "metrics": await site.metrics(),
        "sessions": json.dumps(await site.api("GET", "/api/sessions")),
        "history": json.dumps(await site.api("GET", "/api/history")),
        "processes": "".join(command_lines(server.pid, agent.pid)),
    }
    digest = re.compile(r"[0-9a-f]{64}")
    for place, text in shown.items():
        for name, hidden in (
            ("password", CANARY),
            ("token", created["token"]),
            ("admin token", site.admin_token),
        ):
            assert hidden not in text, f"{name} in {place}"
        assert not digest.search(text), f"a hash in {place}"


def command_lines(*pids: int) -> list[str]:
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
