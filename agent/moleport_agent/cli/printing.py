"""Print answers: aligned columns for people, JSON for programs."""

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from moleport_agent.printable import printable


def print_json(value: Any) -> None:
    """Print one JSON document, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_json_line(value: Any) -> None:
    """Print one JSON object in one line, at once."""
    click.echo(msgspec.json.encode(value).decode())


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print rows in aligned columns, or one sentence when there are none."""
    if not rows:
        click.echo(empty)
        return
    cells = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
