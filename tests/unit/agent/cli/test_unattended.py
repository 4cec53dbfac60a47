"""The samples for unattended agents use options that exist."""

import configparser
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import click
import pytest

from moleport_agent.cli.app import moleport
from moleport_agent.cli.exits import Exit

SAMPLES = Path(__file__).parents[4] / "docs" / "how-to" / "unattended"
GUIDE = SAMPLES.parent / "run-the-agent-unattended.md"


@pytest.fixture(scope="module")
def unit() -> configparser.RawConfigParser:
    class UnitParser(configparser.RawConfigParser):
        def optionxform(self, optionstr: str) -> str:
            return optionstr

    # A unit may repeat a key, which only a lenient parser takes.
    parser = UnitParser(strict=False)
    parser.read_string((SAMPLES / "moleport-agent.service").read_text())
    return parser


def parse(arguments: Iterable[str]) -> click.Context:
    """Let click parse the arguments without running the command."""
    with click.Context(moleport, info_name="moleport") as root:
        name, command, rest = moleport.resolve_command(root, list(arguments))
        assert command is not None
        return command.make_context(name, rest, parent=root)


def test_the_unit_starts_a_command_that_exists(unit: configparser.RawConfigParser) -> None:
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])

    context = parse(arguments)

    assert program.startswith("/")
    assert context.params["token_file"] == Path("${CREDENTIALS_DIRECTORY}/token")
    assert unit["Service"]["LoadCredential"].split(":")[0] == "token"


def test_the_unit_gives_up_only_where_trying_again_is_pointless(
    unit: configparser.RawConfigParser,
) -> None:
    codes = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}

    assert codes == {Exit.USAGE, Exit.NOT_AUTHORISED, Exit.REFUSED}
    assert unit["Service"]["Restart"] == "always"


def test_the_unit_takes_what_an_agent_does_not_need(unit: configparser.RawConfigParser) -> None:
    for key in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateDevices"):
        assert unit["Service"][key] == "yes"
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["CapabilityBoundingSet"] == ""


def test_the_container_starts_a_command_that_exists_without_root() -> None:
    text = (SAMPLES / "Dockerfile").read_text()
    instructions = dict(re.findall(r"^(USER|ENTRYPOINT|CMD|STOPSIGNAL) (.+)$", text, re.MULTILINE))

    context = parse(json.loads(instructions["CMD"]))

    assert context.info_name == "start"
    assert json.loads(instructions["ENTRYPOINT"])[0].endswith("/moleport")
    assert instructions["USER"].split(":")[0].isdigit()
    assert instructions["USER"] != "0:0"


def test_the_commands_of_the_guide_exist() -> None:
    commands = re.findall(r"^\$ moleport (.+)$", GUIDE.read_text(), re.MULTILINE)

    assert len(commands) == 2
    for command in commands:
        assert parse(shlex.split(command)).command is not None
