import json
from pathlib import Path

from helpers.command_line import printed_json, run
from helpers.control_server import ControlServer


def test_a_healthy_way_ends_with_zero(tmp_path: Path) -> None:
    with ControlServer() as server:
        server.healthy()
        environ = {
            "MOLEPORT_SERVER": server.url,
            "MOLEPORT_TOKEN": "t",
            "MOLEPORT_CONFIG_DIR": str(tmp_path),
        }
        document = printed_json(run("doctor", "--json", **environ))

    assert document["healthy"] is True
    assert {check["outcome"] for check in document["checks"]} <= {"ok", "warning"}
    assert set(document["checks"][0]) == {"check", "outcome", "sentence", "remedy"}


def test_a_failure_ends_with_one_and_says_what_to_do(tmp_path: Path) -> None:
    environ = {
        "MOLEPORT_SERVER": "http://127.0.0.1:1",
        "MOLEPORT_TOKEN": "t",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }

    plain = run("doctor", **environ)
    document = run("doctor", "--json", **environ)

    assert (plain.exit_code, document.exit_code) == (1, 1)
    assert "-> check the port" in plain.stdout
    assert json.loads(document.stdout)["healthy"] is False


def test_missing_settings_are_a_finding_too(tmp_path: Path) -> None:
    result = run("doctor", MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 1
    assert "no server" in result.stdout
