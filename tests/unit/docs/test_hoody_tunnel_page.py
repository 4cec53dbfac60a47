"""`docs/reference/hoody-tunnel.md` names tests that exist, one at least for each rule."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "hoody-tunnel.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+)::(\w+)`")
RULES = [line for line in PAGE.splitlines() if line.startswith("| ") and "Proved by" not in line]


@cache
def names_in(name: str) -> frozenset[str]:
    folder = ROOT / "tests" / ("e2e" if name.startswith("process/") else "unit")
    tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_tests_that_exist(rule: str) -> None:
    named = NAMED.findall(rule)

    assert named
    assert [f"{file}::{test}" for file, test in named if test not in names_in(file)] == []


def test_there_are_rules_to_look_at() -> None:
    assert len(RULES) > 50
