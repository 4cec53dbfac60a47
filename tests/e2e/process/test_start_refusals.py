"""What cannot work is refused at the start, with a sentence, an exit code and nothing lost."""

import socket
import sqlite3
from pathlib import Path

import pytest

from helpers.origins import WebOrigin
from helpers.processes import free_port
from helpers.site import Site

EXIT_SETTINGS, EXIT_ADDRESS, EXIT_STORE = 2, 3, 4
AGENT_USAGE, AGENT_UNREACHABLE, AGENT_NOT_AUTHORISED = 2, 3, 4
PROBLEMS = 3


async def test_a_port_in_use_is_named_and_nothing_is_started(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.https_port)):
        server = await site.launch_server()
        assert await server.wait_exit() == EXIT_ADDRESS

    assert f"port {site.https_port} for edge_https is in use" in server.output
    assert "--port-base" in server.output
    assert not (site.config_dir / "profile.json").exists()


async def test_a_second_server_on_the_same_data_is_refused(site: Site, tmp_path: Path) -> None:
    await site.start_server()

    async with Site(tmp_path) as other:
        second = await other.launch_server()
        assert await second.wait_exit() == EXIT_STORE
        assert "Traceback" not in second.output
    await site.api("GET", "/api/status")


@pytest.mark.parametrize("damage", ["garbage", "newer"])
async def test_a_database_that_cannot_be_used_is_refused_and_left_alone(
    site: Site, damage: str
) -> None:
    server = await site.start_server()
    await site.api("POST", "/api/tokens", {"label": "precious"})
    await server.kill()
    path = site.data_dir / "state.db"
    if damage == "garbage":
        for side in (path.with_name("state.db-wal"), path.with_name("state.db-shm")):
            side.unlink(missing_ok=True)
        path.write_bytes(b"SQLite format 3\0" + b"garbage " * 4096)
    else:
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 999")
        database.close()
    before = path.read_bytes()

    refused = await site.launch_server()

    assert await refused.wait_exit() == EXIT_STORE
    assert "state.db" in refused.output
    assert "Traceback" not in refused.output
    assert path.read_bytes() == before


async def test_damaged_captures_are_put_aside_and_the_server_starts(site: Site) -> None:
    server = await site.start_server()
    await server.kill()
    captures = site.data_dir / "captures.db"
    for side in ("captures.db-wal", "captures.db-shm"):
        (site.data_dir / side).unlink(missing_ok=True)
    captures.write_bytes(b"no database at all" * 1000)

    await site.start_server()

    assert [path for path in site.data_dir.glob("captures.db*") if path.read_bytes()[:2] == b"no"]


async def test_every_mistake_in_the_settings_is_told_at_once(site: Site) -> None:
    config = site.directory / "server.toml"
    config.write_text(
        '[server]\ndomain = ["x"]\n[listen]\nedge_http = "nowhere"\n[limits]\nhead_bytes = -1\n'
    )
    server = await site.run(
        "moleport-server", "run", "--config", config, "--data-dir", site.data_dir
    )

    assert await server.wait_exit() == EXIT_SETTINGS
    for key in ("server.domain", "listen.edge_http", "limits.head_bytes"):
        assert key in server.output
    assert len([line for line in server.lines if line.startswith("moleport-server:")]) >= PROBLEMS


async def test_every_mistake_in_the_tunnel_file_is_told_at_once(site: Site) -> None:
    path = site.directory / "moleport.yaml"
    path.write_text(
        "server: https://localhost:4040\n"
        "tunnels:\n  a: {protocol: smtp, target: '25'}\n  b: {protocol: http, targt: '80'}\n"
    )
    agent = await site.run("moleport", "start", "-f", path)

    assert await agent.wait_exit() == AGENT_USAGE
    assert "tunnels.a" in agent.output
    assert "tunnels.b" in agent.output
    assert "Traceback" not in agent.output


async def test_a_wrong_token_ends_the_agent_with_a_sentence(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    wrong = site.directory / "wrong"
    wrong.write_text("c0ffee-wrong-c0ffee\n")

    agent = await site.run("moleport", "http", str(origin.port), "--token-file", wrong)

    assert await agent.wait_exit() == AGENT_NOT_AUTHORISED
    assert "token" in agent.output
    assert "c0ffee" not in agent.output
    assert "Traceback" not in agent.output


async def test_an_agent_without_a_server_says_what_to_do(site: Site, origin: WebOrigin) -> None:
    agent = await site.run("moleport", "http", str(origin.port))

    assert await agent.wait_exit() == AGENT_USAGE
    assert "moleport login" in agent.output


async def test_an_untrusted_certificate_is_told_and_retried_in_vain(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    agent = await site.launch_agent(
        *("http", str(origin.port), "--server", f"https://localhost:{site.control_port}"),
        *("--token-file", str(site.data_dir / "admin-token")),
        # Without the profile, which knows the server's authority.
        environ={"MOLEPORT_CONFIG_DIR": str(site.directory / "empty")},
    )

    event = await agent.wait_event("disconnected")

    assert event["reason"].startswith("the server's certificate is not trusted: ")
    assert "moleport doctor" in event["reason"]
    listed = await site.run(
        *("moleport", "list", "--server", f"https://localhost:{site.control_port}"),
        *("--token-file", site.data_dir / "admin-token"),
        MOLEPORT_CONFIG_DIR=str(site.directory / "empty"),
    )
    assert await listed.wait_exit() == AGENT_UNREACHABLE
    assert "is not trusted: " in listed.output
    assert "--ca-file" in listed.output
    assert not agent.events("tunnel_opened")


async def test_an_agent_waits_for_its_server_to_come(site: Site, origin: WebOrigin) -> None:
    await site.start_server()
    await site.server.kill()
    agent = await site.launch_agent("http", str(origin.port), "--name", "shop")
    await agent.wait_event("disconnected")

    await site.start_server()
    await agent.wait_opened()

    assert (await site.curl("shop.localhost", "/")).text == "hello "


async def test_a_tcp_port_that_another_program_has_is_refused_for_that_tunnel_only(
    site: Site, origin: WebOrigin
) -> None:
    await site.start_server()
    with socket.create_server(("127.0.0.1", site.tcp_port + 3)):
        path = site.directory / "moleport.yaml"
        path.write_text(
            "tunnels:\n"
            f"  shop: {{protocol: http, target: '{origin.port}', name: shop}}\n"
            f"  echo: {{protocol: tcp, target: '{free_port()}', port: {site.tcp_port + 3}}}\n"
        )
        agent = await site.start_agent("start", "-f", path)
        refused = await agent.wait_event("tunnel_refused")

    assert refused["name"] == "echo"
    assert "in use" in refused["message"]
    assert (await site.curl("shop.localhost", "/")).text == "hello "
