"""Run `moleport` in this process against a control listener of the test."""

import json
from typing import Any

from click.testing import CliRunner, Result

from moleport_agent.cli.app import moleport


def run(*arguments: str, text: str | None = None, **environ: str) -> Result:
    """Run one command; `environ` replaces what the test runs in."""
    cleared = dict.fromkeys(
        (
            "MOLEPORT_SERVER",
            "MOLEPORT_TOKEN",
            "MOLEPORT_TOKEN_FILE",
            "MOLEPORT_CA_FILE",
            "MOLEPORT_SECRET_DIR",
        )
    )
    return CliRunner().invoke(moleport, arguments, input=text, env={**cleared, **environ})


def printed_json(result: Result) -> Any:
    """Return the document that a command printed, or show why it did not."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
