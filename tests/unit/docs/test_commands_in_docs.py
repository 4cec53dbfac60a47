"""Command lines in the documentation work: each command, option and make target exists.

Every line of a `console` block that calls one of ours is parsed by the command itself, without running
it: what a reader would copy must not end in «no such option».
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from moleport_agent.cli.app import moleport as agent_cli
from moleport_operator.main import main as operator_cli
from moleport_server.main import cli as server_cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: dict[str, click.Command] = {
    "moleport": agent_cli,
    "moleport-server": server_cli,
    "moleport-operator": operator_cli,
}
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shell_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.sub(r"\\\n\s*(?:>\s*)?", "", block).splitlines():
                if line.startswith("$ "):
                    yield str(page.relative_to(ROOT)), line[2:]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    for page, line in shell_lines():
        words = shlex.split(line, comments=True)
        if Path(words[0]).name in COMMANDS:
            yield page, [Path(words[0]).name, *words[1:]]


def parse(command: click.Command, words: list[str], name: str) -> None:
    """Let click take the words apart as it would before it runs the command."""
    context = command.make_context(name, list(words), resilient_parsing=False)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        found, child, rest = command.resolve_command(context, rest)
        assert child is not None
        parse(child, rest, f"{name} {found}")


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=f"{page}: {shlex.join(words)}") for page, words in command_lines()],
)
def test_a_command_line_is_understood(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.endswith(".pem"):
            (tmp_path / word).touch()  # some options look whether their file is there
    words = words[: words.index(">")] if ">" in words else words
    name, *arguments = words

    parse(COMMANDS[name], arguments, name)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = {
        word
        for _, line in shell_lines()
        if line.startswith("make ")
        for word in shlex.split(line, comments=True)[1:]
        if "=" not in word  # a variable for make
    }

    assert named
    assert named <= targets


def test_continuous_integration_runs_the_test_commands_of_the_readme_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert commands == ["make test", "make e2e"]
    assert "$ make test " in readme
    assert "`make e2e`" in readme


def test_relative_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []


def test_pictures_are_what_the_code_draws() -> None:
    from terminal_picture import PICTURE, draw

    assert PICTURE.read_text(encoding="utf-8") == draw()
