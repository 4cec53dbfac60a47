"""`docs/reference/logs.md` lists each event of the server, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}


class Event(NamedTuple):
    """One call of a logger, or one row of the page."""

    text: str
    level: str
    logger: str


def events_of_the_code() -> Iterator[Event]:
    for root in (ROOT / "server", ROOT / "wire"):
        for path in root.rglob("*.py"):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                receiver, method = node.func.value, node.func.attr
                is_logger = isinstance(receiver, ast.Name) and receiver.id == "logger"
                if is_logger and method in LEVELS:
                    text = ast.literal_eval(node.args[0])
                    assert isinstance(text, str), f"{path}:{node.lineno} has no constant text"
                    yield Event(text, LEVELS[method], module)


def events_of_the_page() -> list[Event]:
    page = (ROOT / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| `([\w.]+)` \|", page, re.MULTILINE)
    return [Event(*row) for row in rows]


def test_the_page_lists_exactly_the_events_of_the_code() -> None:
    assert set(events_of_the_page()) == set(events_of_the_code())


def test_each_event_has_one_row() -> None:
    rows = events_of_the_page()

    assert len(rows) == len(set(rows))
    assert rows
