import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from helpers.command_line import run
from moleport_agent import agent
from moleport_agent.events import Observer, TunnelOpened
from moleport_agent.settings import AgentSettings, ContainerPort


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "MOLEPORT_SERVER": "http://127.0.0.1:1",
        "MOLEPORT_TOKEN": "secret",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[AgentSettings]:
    """What the agent would have been started with; it ends at once with code 5."""
    seen = []

    async def run_agent(settings: AgentSettings, observe: Observer, *, stop: asyncio.Event) -> int:
        seen.append(settings)
        observe(TunnelOpened(settings.tunnels[0].name, "https://x.a", "3000"))
        return 5

    monkeypatch.setattr(agent, "run_agent", run_agent)
    return seen


def test_http_hands_everything_to_the_agent(
    environ: dict[str, str], started: list[AgentSettings], tmp_path: Path
) -> None:
    (tmp_path / "users").write_text("bob:two\n")

    result = run(
        "http", "3000", "--name", "shop", "--host-header", "rewrite", "--basic-auth", "ann:one",
        "--basic-auth-file", str(tmp_path / "users"), "--allow-cidr", "10.0.0.0/8",
        "--allow-cidr", "::1", "--connections", "3", **environ,
    )  # fmt: skip

    (settings,) = started
    (tunnel,) = settings.tunnels
    assert (settings.server.url, settings.server.read_token()) == ("http://127.0.0.1:1", "secret")
    assert settings.connections == 3
    assert (tunnel.protocol, tunnel.target.port, tunnel.subdomain) == ("http", 3000, "shop")
    assert (tunnel.host_header, tunnel.allow_cidrs) == ("rewrite", ("10.0.0.0/8", "::1/128"))
    assert tunnel.basic_auth == (("ann", "one"), ("bob", "two"))
    assert result.exit_code == 5
    assert result.stdout == "shop: https://x.a -> 3000\n"


def test_tcp_hands_everything_to_the_agent(
    environ: dict[str, str], started: list[AgentSettings]
) -> None:
    run("tcp", "db:5432", "--port", "20005", "--proxy-protocol", "v2", "--quiet", **environ)

    (tunnel,) = started[0].tunnels
    assert (tunnel.protocol, tunnel.port, tunnel.proxy_protocol) == ("tcp", 20005, "v2")
    assert not started[0].report_requests


def test_every_wrong_flag_is_named(environ: dict[str, str], started: list[AgentSettings]) -> None:
    result = run("http", "3000", "--name", "a.b", "--allow-cidr", "x", **environ)

    assert result.exit_code == 2
    assert "--name is one label" in result.stderr
    assert "--allow-cidr 'x' is no network" in result.stderr
    assert started == []


@pytest.fixture
def tunnel_file(tmp_path: Path) -> Path:
    path = tmp_path / "moleport.yaml"
    path.write_text(
        textwrap.dedent("""
        server: http://127.0.0.1:2
        connections: 2
        tunnels:
          web: {protocol: http, target: 3000}
          db: {protocol: tcp, target: 5432}
        """)
    )
    return path


def test_start_takes_all_tunnels_and_the_files_server(
    environ: dict[str, str], started: list[AgentSettings], tunnel_file: Path
) -> None:
    del environ["MOLEPORT_SERVER"]

    run("start", "-f", str(tunnel_file), **environ)

    assert [tunnel.name for tunnel in started[0].tunnels] == ["web", "db"]
    assert (started[0].server.url, started[0].connections) == ("http://127.0.0.1:2", 2)


def test_start_takes_the_tunnels_that_are_named(
    environ: dict[str, str], started: list[AgentSettings], tunnel_file: Path
) -> None:
    run("start", "-f", str(tunnel_file), "--connections", "1", "db", "db", **environ)

    assert [tunnel.name for tunnel in started[0].tunnels] == ["db"]
    assert started[0].connections == 1


def test_start_refuses_a_name_that_the_file_does_not_have(
    environ: dict[str, str], started: list[AgentSettings], tunnel_file: Path
) -> None:
    result = run("start", "-f", str(tunnel_file), "other", **environ)

    assert result.exit_code == 2
    assert "has no tunnel other; it has web, db" in result.stderr


def test_a_real_agent_without_a_server_waits_and_ends_cleanly(tmp_path: Path) -> None:
    script = "import moleport_agent.cli as cli; cli.main()"
    environ = {
        "MOLEPORT_SERVER": "http://127.0.0.1:1",
        "MOLEPORT_TOKEN": "secret",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", script, "http", "3000"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "connecting" in process.stdout.readline()
        assert "offline" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0


def test_expose_asks_for_a_container_port(
    environ: dict[str, str], started: list[AgentSettings]
) -> None:
    run("expose", "3000", "--port", "8080", "--name", "shop", "--takeover", **environ)

    (tunnel,) = started[0].tunnels
    assert (tunnel.protocol, tunnel.subdomain, tunnel.target.port) == ("http", "shop", 3000)
    assert tunnel.container == ContainerPort(mode="expose", port=8080, takes_over=True)


def test_pull_asks_for_a_port_on_loopback(
    environ: dict[str, str], started: list[AgentSettings]
) -> None:
    run("pull", "localhost:5432", "--host", "::1", **environ)

    (tunnel,) = started[0].tunnels
    assert tunnel.protocol == "tcp"
    assert tunnel.container == ContainerPort(mode="pull", port=0, host="::1")


@pytest.mark.parametrize("words", [("expose", "3000", "--port", "0"), ("pull", "1", "--host", "x")])
def test_impossible_ports_and_hosts_are_refused(
    environ: dict[str, str], started: list[AgentSettings], words: tuple[str, ...]
) -> None:
    assert run(*words, **environ).exit_code == 2
    assert started == []
