import subprocess
import sys

import pytest

BLOCKED = """
import sys

sys.modules["cryptography"] = None  # as if it were not installed
from moleport_server.entry import main

sys.argv = ["moleport-server", "run", *sys.argv[1:]]
main()
"""
OFF = [f"--set=listen.{name}=off" for name in ("edge_http", "control", "api", "metrics")]


def test_without_the_libraries_of_the_server_the_command_says_what_to_install() -> None:
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, *OFF],
        text=True,
        capture_output=True,
        env={"MOLEPORT__AUTH__ADMIN_TOKEN": "hunter2"},
    )

    assert result.returncode == 1
    assert result.stderr == (
        "moleport-server: cryptography is not installed; the server needs its extra: "
        "pip install 'moleport[server]'\n"
    )


def test_with_them_the_command_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moleport_server.entry import main

    monkeypatch.setattr(sys, "argv", ["moleport-server", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("moleport-server, version ")


def test_visitors_do_not_wait_for_what_they_do_not_need() -> None:
    read = (
        "import sys; from moleport_server import entry, main; early = set(sys.modules);"
        "from moleport_server.app import server, front; print(*early); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", read], text=True, capture_output=True)

    until_it_listens, until_it_serves = (set(line.split()) for line in result.stdout.splitlines())
    slow = {"asyncio", "cryptography", "importlib.metadata", "platformdirs", "secrets", "sqlite3"}
    assert until_it_listens & (slow | {"aiohttp", "aiosqlite", "prometheus_client"}) == set()
    assert until_it_serves & {"aiohttp", "rich", "yaml"} == set()
    assert "moleport_server.app.server" in until_it_serves
