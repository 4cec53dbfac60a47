import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.control_server import ControlServer
from moleport_agent.cli.app import moleport
from moleport_agent.cli.exits import MEANINGS


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SERVER", "TOKEN", "TOKEN_FILE", "CA_FILE", "SECRET_DIR"):
        monkeypatch.delenv(f"MOLEPORT_{name}", raising=False)
    monkeypatch.setenv("MOLEPORT_CONFIG_DIR", str(tmp_path / "config"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(moleport, arguments)


def test_the_list_of_commands_says_whole_sentences() -> None:
    listed = CliRunner(env={"COLUMNS": "80"}).invoke(moleport, ["--help"]).output

    assert "Find out what is wrong between here and the server." in listed
    assert "..." not in listed.partition("Commands:")[2]


USAGE = {
    "unknown command": ["frobnicate"],
    "no target": ["http"],
    "a token as argument": ["http", "3000", "--token", "secret"],
    "too many connections": ["http", "3000", "--connections", "17"],
    "quiet and verbose": ["http", "3000", "-q", "-v"],
    "unknown proxy protocol": ["tcp", "22", "--proxy-protocol", "v3"],
    "unknown shell": ["completion", "tcsh"],
    "wrong target": ["http", "nonsense"],
    "wrong name": ["http", "3000", "--name", "a.b", "--server", "https://a"],
    "nothing configured": ["status"],
    "missing file": ["start", "-f", "none.yaml"],
    "wrong server": ["list", "--server", "ftp://a"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_and_settings_end_with_two_and_a_sentence(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.output


def test_help_documents_every_exit_code() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for code, meaning in MEANINGS.items():
        assert f"{code.value}" in result.output
        assert meaning in result.output


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 5), (409, 5), (503, 3)])
def test_a_refusal_of_the_server_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    monkeypatch.setenv("MOLEPORT_TOKEN", "secret")
    with ControlServer() as server:
        server.answer("GET", "/api/tunnels", {"error": "\x1b[2Jbecause"}, status=status)

        result = run("list", "--server", server.url)

    assert result.exit_code == code
    assert "\\x1b[2Jbecause" in result.stderr


def test_a_server_that_is_away_ends_with_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLEPORT_TOKEN", "secret")

    assert run("list", "--server", "http://127.0.0.1:1").exit_code == 3


def test_insecure_is_said_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLEPORT_TOKEN", "secret")

    result = run("list", "--server", "https://127.0.0.1:1", "--insecure", "--json")

    assert result.stderr.count("warning:") == 1
    assert "NOT verified" in result.stderr


def test_a_plain_tunnel_carries_neither_http_client_nor_view_nor_yaml() -> None:
    script = (
        "import sys; import moleport_agent.cli, moleport_agent.cli.views,"
        " moleport_agent.cli.signals, moleport_agent.agent;"
        "print([name for name in ('httpx', 'rich', 'yaml') if name in sys.modules])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )

    assert shown.stdout == "[]\n"


def test_a_reader_that_leaves_causes_no_complaint() -> None:
    script = "import sys, moleport_agent.cli as cli; sys.argv[1:] = ['--help']; cli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
        process.wait(timeout=30)

    assert b"Exception" not in complaint
    assert b"Traceback" not in complaint
