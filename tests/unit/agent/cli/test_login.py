import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command_line import printed_json, run
from helpers.control_server import ControlServer


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.healthy()
        yield running


def test_a_token_from_standard_input_is_tried_and_remembered(
    server: ControlServer, tmp_path: Path
) -> None:
    result = run("login", server.url, text="secret\n", MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "profile.json").read_text()) == {
        "server": server.url,
        "token": "secret",
    }
    assert server.seen[-1].headers["authorization"] == "Bearer secret"
    assert "secret" not in result.output
    assert run("list", MOLEPORT_CONFIG_DIR=str(tmp_path)).exit_code == 0


def test_a_token_file_is_remembered_by_its_place(server: ControlServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")

    document = printed_json(
        run(
            "login",
            "--token-file",
            str(tmp_path / "token"),
            "--json",
            MOLEPORT_SERVER=server.url,
            MOLEPORT_CONFIG_DIR=str(tmp_path),
        )
    )

    assert document["verified"] is True
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile == {"server": server.url, "token_file": str(tmp_path / "token")}


def test_a_token_that_is_refused_is_not_remembered(server: ControlServer, tmp_path: Path) -> None:
    server.answer("GET", "/api/tunnels", {"error": "invalid token"}, status=401)

    result = run("login", server.url, text="secret\n", MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 4
    assert not (tmp_path / "profile.json").exists()


def test_a_server_that_is_away_can_be_remembered_unseen(tmp_path: Path) -> None:
    arguments = ("login", "https://127.0.0.1:1", "--no-verify", "--insecure")

    result = run(*arguments, text="secret\n", MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 0
    assert "NOT verified" in result.stderr
    assert json.loads((tmp_path / "profile.json").read_text())["insecure"] is True


@pytest.mark.parametrize("text", ["", "two words"], ids=["empty", "words"])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    result = run("login", "https://a", text=text, MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 2


def test_a_piped_token_is_not_taken_for_the_server(tmp_path: Path) -> None:
    result = run("login", text="secret\n", MOLEPORT_CONFIG_DIR=str(tmp_path))

    assert result.exit_code == 2
    assert "no server: write `moleport login https://host:4040`" in result.output
    assert "secret" not in result.output
