from pathlib import Path

from moleport_agent.cli.app import moleport
from moleport_agent.cli.reference import reference_page

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "cli.md"


def test_the_page_is_that_of_the_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "renew it: python -m moleport_agent.cli.reference > docs/reference/cli.md"
    )


def test_every_command_has_its_section() -> None:
    page = reference_page()

    for name in moleport.commands:
        assert f"### `moleport {name}" in page
