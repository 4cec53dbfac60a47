"""The real Prometheus Operator and the real Prometheus find server and operator, and our rules."""

import json
from typing import Any
from urllib.parse import quote

from helpers.kubernetes_cluster import Cluster
from helpers.release import MONITORED, NODE_PORTS, Release

PROMETHEUS = "/api/v1/namespaces/monitoring/services/prometheus-operated:9090/proxy/api/v1"
SCRAPE_SECONDS = 180.0
"""Prometheus has its configuration from a mounted Secret, which comes up to 90 s late."""


def ask(cluster: Cluster, path: str) -> Any:
    answer = cluster.kubectl("get", "--raw", f"{PROMETHEUS}/{path}", code=None)
    return json.loads(answer)["data"] if answer.startswith("{") else None


def query(cluster: Cluster, text: str) -> list[dict[str, Any]]:
    found = ask(cluster, f"query?query={quote(text)}")
    result: list[dict[str, Any]] = found["result"] if found else []
    return result


async def test_prometheus_scrapes_server_and_operator_and_knows_each_token(
    cluster: Cluster, release: Release, namespace: str
) -> None:
    release.ensure(NODE_PORTS, MONITORED)
    release.ready_token(namespace, "shop")

    def up() -> bool:
        rows = query(cluster, f'up{{namespace="{release.namespace}"}}')
        pods = {row["metric"]["pod"].split("-")[1] for row in rows if row["value"][1] == "1"}
        return pods == {"server", "operator"} and all(row["value"][1] == "1" for row in rows)

    await cluster.until_async(up, "up == 1 for server and operator", SCRAPE_SECONDS)
    ready = f'moleport_operator_token_ready{{exported_namespace="{namespace}",name="shop"}} == 1'
    other = f'moleport_operator_token_ready{{namespace="{namespace}",name="shop"}} == 1'
    await cluster.until_async(
        lambda: query(cluster, ready) or query(cluster, other), "the token is ready", 60
    )
    assert query(cluster, f'moleport_server_build_info{{namespace="{release.namespace}"}}')


async def test_prometheus_has_loaded_the_alerts_and_none_of_them_is_broken(
    cluster: Cluster, release: Release
) -> None:
    release.ensure(NODE_PORTS, MONITORED)

    def rules() -> list[dict[str, Any]]:
        groups = (ask(cluster, "rules") or {"groups": []})["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def evaluated() -> list[dict[str, Any]]:
        found = [rule for rule in rules() if rule["name"].lower().startswith("moleport")]
        return found if found and all(rule["health"] == "ok" for rule in found) else []

    loaded = await cluster.until_async(evaluated, "rules are loaded and healthy", SCRAPE_SECONDS)

    alerts = [rule for rule in loaded if rule["type"] == "alerting"]
    assert len(alerts) >= 10
    assert all("runbook_url" in rule["annotations"] for rule in alerts)
    firing = [rule["name"] for rule in alerts if rule["state"] == "firing"]
    assert firing == []
