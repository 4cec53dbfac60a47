"""Alerts, rules and dashboards name what our programs export, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

import chart_dashboards
from chart_manifests import CHART, NO_HELM, ROOT, find_tool, objects, template
from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.clock import SystemClock
from moleport_operator.collectors import ObjectCollector, QueueCollector, StateCollector
from moleport_operator.metrics import Instruments
from moleport_operator.queue import WorkQueue
from moleport_operator.watch_life import WatchLife
from moleport_server.metrics.catalogue import CATALOGUE

pytestmark = pytest.mark.skipif(find_tool("helm") is None, reason=NO_HELM)

CASES = Path(__file__).with_name("alerts_test.yaml")
RUNBOOKS = ROOT / "docs" / "how-to" / "runbooks.md"
NO_PROMTOOL = "no promtool: `make chart-tools` gets it (needs apt)"
OURS = re.compile(
    r"\b(moleport_[a-z_]+|controller_runtime_[a-z_]+|workqueue_[a-z_]+|leader_[a-z_]+)"
)


def groups(*arguments: str) -> list[dict[str, Any]]:
    text = template("--set", "metrics.prometheusRule.enabled=true", *arguments)
    [rule] = [body for body in objects(text) if body["kind"] == "PrometheusRule"]
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def rules(*arguments: str) -> list[dict[str, Any]]:
    return [rule for group in groups(*arguments) for rule in group["rules"]]


def alerts(*arguments: str) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(*arguments) if "alert" in rule}


def exported() -> set[str]:
    """Return the names of all series that server and operator export."""
    registry, clock = CollectorRegistry(), SystemClock()
    Instruments.make(registry)
    registry.register(QueueCollector(WorkQueue(clock, lambda: 0.5), 1))
    registry.register(StateCollector(Breaker(clock), WatchLife(clock), lambda: True))
    registry.register(ObjectCollector(Cache(), clock, 1))
    server = {(row.name, str(row.kind)) for row in CATALOGUE}
    operator = {(family.name, family.type) for family in registry.collect()}
    return set(_series(server | operator))


def _series(families: set[tuple[str, str]]) -> Iterator[str]:
    for name, kind in families:
        yield name
        if kind == "counter":
            yield f"{name.removesuffix('_total')}_total"
        if kind == "histogram":
            yield from (f"{name}_{part}" for part in ("bucket", "sum", "count"))


@pytest.mark.skipif(find_tool("promtool") is None, reason=NO_PROMTOOL)
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    url = "metrics.prometheusRule.runbookURL=https://runbooks.test"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups("--set", url)}))
    shutil.copy(CASES, tmp_path)

    done = subprocess.run(
        [str(find_tool("promtool")), "test", "rules", CASES.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in yaml.safe_load(CASES.read_text("utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]

    for name in alerts():
        assert (name, True) in cases, name
        assert (name, False) in cases, name


def test_each_alert_has_a_runbook() -> None:
    headings = {
        line.removeprefix("## ").lower()
        for line in RUNBOOKS.read_text("utf-8").splitlines()
        if line.startswith("## ")
    }

    for alert in alerts().values():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/how-to/runbooks.md")
        assert anchor in headings


def test_each_alert_can_be_changed_and_turned_off() -> None:
    everything = alerts()
    flags = [
        f"metrics.prometheusRule.alerts.{name}.enabled=false"
        for name in everything
        if name != "MoleportServerDown"
    ]
    change = "metrics.prometheusRule.alerts.MoleportServerDown"

    left = alerts("--set", ",".join([*flags, f"{change}.for=9m", f"{change}.severity=page"]))

    assert [*left] == ["MoleportServerDown"]
    assert left["MoleportServerDown"]["for"] == "9m"
    assert left["MoleportServerDown"]["labels"]["severity"] == "page"
    assert len(everything) >= 20


def test_rules_name_only_series_that_are_exported_or_recorded() -> None:
    known = exported() | {rule["record"] for rule in rules() if "record" in rule}

    named = {name for rule in rules() for name in OURS.findall(rule["expr"])}

    assert len(named) > 15
    assert named - known == set()


@pytest.mark.parametrize("board", chart_dashboards.BOARDS, ids=lambda board: board.name)
def test_dashboards_name_only_series_that_are_exported(board: chart_dashboards.Board) -> None:
    text = (CHART / "files" / "dashboards" / f"{board.name}.json").read_text("utf-8")
    shown = json.loads(text)

    expressions = [t["expr"] for panel in shown["panels"] for t in panel.get("targets", [])]

    named = {name for text in expressions for name in OURS.findall(text)}
    assert named
    assert named - exported() == set()
    assert all(text.count("(") == text.count(")") for text in expressions)


@pytest.mark.skipif(find_tool("promtool") is None, reason=NO_PROMTOOL)
def test_expressions_of_dashboards_can_be_parsed(tmp_path: Path) -> None:
    found = [
        target["expr"].replace("$__rate_interval", "5m")
        for board in chart_dashboards.BOARDS
        for panel in json.loads(chart_dashboards.render(board))["panels"]
        for target in panel.get("targets", [])
    ]
    records = [
        {"record": f"test:expression{number}", "expr": text} for number, text in enumerate(found)
    ]
    path = tmp_path / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}))

    done = subprocess.run(
        [str(find_tool("promtool")), "check", "rules", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(found) > 40
