"""Writes the dashboards of the chart for Grafana: what is on them is a table here, the rest is layout.

Three boards: is the server well, what goes through tunnels, is the operator well. Each has variables for the
source of data, the namespace and the pods, so that one import serves every install. Run by `make chart`; a
test compares the result, and another looks each metric up in the catalogues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "charts" / "moleport" / "files" / "dashboards"
COLUMNS: Final = 24
PODS: Final = '{namespace="$namespace",pod=~"$pod"}'


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: a title, and a line for each expression, by its legend. `@` stands for our pods."""

    title: str
    lines: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard: rows of panels."""

    name: str
    title: str
    pods: str
    """A metric that every pod of the board has."""
    rows: Mapping[str, tuple[Panel, ...]] = field(default_factory=dict)


def _rate(metric: str, by: str = "", more: str = "") -> str:
    selector = PODS.replace("}", f",{more}}}") if more else "@"
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{selector}[$__rate_interval]))"


def _quantile(number: float, metric: str, by: str = "le") -> str:
    return f"histogram_quantile({number}, sum by ({by}) (rate({metric}_bucket@[$__rate_interval])))"


BOARDS: Final = (
    Board(
        name="server",
        title="moleport / Server",
        pods="moleport_server_build_info",
        rows={
            "Now": (
                Panel(
                    "Agents", {"": "sum(moleport_server_agents_connected@)"}, kind="stat", width=4
                ),
                Panel(
                    "Tunnels", {"": "sum(moleport_server_tunnels_active@)"}, kind="stat", width=4
                ),
                Panel(
                    "Visitors' connections",
                    {"": "sum(moleport_server_connections_active@)"},
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Kept for absent agents",
                    {"": "sum(moleport_server_leases@)"},
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Certificate ends in",
                    {
                        "{{certificate}}": "moleport_server_tls_certificate_expiration_timestamp_seconds@"
                        " - time()"
                    },
                    unit="s",
                    kind="stat",
                    width=8,
                ),
            ),
            "Visitors": (
                Panel(
                    "Requests",
                    {"{{code}}": _rate("moleport_server_requests_total", "code")},
                    unit="reqps",
                ),
                Panel(
                    "Time to the head of the answer",
                    {
                        "half": _quantile(0.5, "moleport_server_upstream_duration_seconds"),
                        "99 of 100": _quantile(0.99, "moleport_server_upstream_duration_seconds"),
                    },
                    unit="s",
                ),
                Panel(
                    "Refusals by reason",
                    {"{{reason}}": _rate("moleport_server_refusals_total", "reason")},
                    unit="reqps",
                    about="The codes of docs/reference/errors.md.",
                ),
                Panel(
                    "Limits that bit",
                    {"{{limit}}": _rate("moleport_server_rate_limited_total", "limit")},
                    unit="reqps",
                ),
                Panel(
                    "Connections refused",
                    {
                        "{{listener}}": _rate(
                            "moleport_server_connections_total", "listener", 'result="refused"'
                        )
                    },
                    unit="cps",
                ),
                Panel(
                    "TLS handshakes that failed",
                    {
                        "{{listener}}": _rate(
                            "moleport_server_tls_handshake_failures_total", "listener"
                        )
                    },
                    unit="cps",
                ),
            ),
            "Agents": (
                Panel(
                    "Sessions that ended",
                    {"{{reason}}": _rate("moleport_server_sessions_closed_total", "reason")},
                    unit="cps",
                ),
                Panel(
                    "Credentials that were checked",
                    {
                        "{{kind}} {{result}}": _rate(
                            "moleport_server_auth_attempts_total", "kind, result"
                        )
                    },
                    unit="cps",
                ),
                Panel(
                    "Round trip to agents",
                    {
                        "half": _quantile(0.5, "moleport_server_agent_rtt_seconds"),
                        "99 of 100": _quantile(0.99, "moleport_server_agent_rtt_seconds"),
                    },
                    unit="s",
                ),
            ),
            "Process": (
                Panel("CPU", {"{{pod}}": _rate("process_cpu_seconds_total", "pod")}, unit="short"),
                Panel("Memory", {"{{pod}}": "process_resident_memory_bytes@"}, unit="bytes"),
                Panel(
                    "Event loop, worst lag",
                    {"{{pod}}": "moleport_server_event_loop_lag_max_seconds@"},
                    unit="s",
                ),
                Panel(
                    "File descriptors",
                    {"in use": "sum(process_open_fds@)", "limit": "sum(process_max_fds@)"},
                ),
                Panel(
                    "Buffers",
                    {
                        "for visitors": "sum(moleport_server_receive_buffer_bytes@)",
                        "to agents": "sum(moleport_server_send_buffer_bytes@)",
                        "captures": "sum(moleport_server_capture_bytes@)",
                    },
                    unit="bytes",
                ),
                Panel(
                    "Calls of the API",
                    {"{{code}}": _rate("moleport_server_api_requests_total", "code")},
                    unit="reqps",
                ),
            ),
        },
    ),
    Board(
        name="tunnels",
        title="moleport / Tunnels",
        pods="moleport_server_build_info",
        rows={
            "Traffic": (
                Panel(
                    "Bytes to agents",
                    {
                        "{{protocol}}": _rate(
                            "moleport_server_bytes_total", "protocol", 'direction="to_agent"'
                        )
                    },
                    unit="Bps",
                    width=12,
                ),
                Panel(
                    "Bytes to visitors",
                    {
                        "{{protocol}}": _rate(
                            "moleport_server_bytes_total", "protocol", 'direction="to_visitor"'
                        )
                    },
                    unit="Bps",
                    width=12,
                ),
            ),
            "Life of tunnels": (
                Panel(
                    "Active",
                    {"{{protocol}}": "sum by (protocol) (moleport_server_tunnels_active@)"},
                ),
                Panel(
                    "Attempts to open",
                    {"{{result}}": _rate("moleport_server_tunnel_opens_total", "result")},
                    unit="cps",
                ),
                Panel(
                    "Closed",
                    {"{{reason}}": _rate("moleport_server_tunnel_closes_total", "reason")},
                    unit="cps",
                ),
            ),
            "While agents are away": (
                Panel("Waiting now", {"": "sum(moleport_server_held_requests@)"}),
                Panel(
                    "How waits ended",
                    {"{{result}}": _rate("moleport_server_held_total", "result")},
                    unit="reqps",
                ),
                Panel(
                    "How long they took",
                    {"99 of 100": _quantile(0.99, "moleport_server_hold_duration_seconds")},
                    unit="s",
                ),
            ),
            "Streams": (
                Panel(
                    "Open and stalled",
                    {
                        "open": "sum(moleport_server_streams_open@)",
                        "stalled": "sum(moleport_server_streams_stalled@)",
                    },
                ),
                Panel(
                    "Resets",
                    {"{{reason}}": _rate("moleport_server_stream_errors_total", "reason")},
                    unit="cps",
                ),
                Panel(
                    "Waiting for credit",
                    {
                        "{{direction}}": _rate(
                            "moleport_server_credit_stall_seconds_total", "direction"
                        )
                    },
                    unit="s",
                ),
            ),
            "Rules": (
                Panel(
                    "Visitors turned away",
                    {"{{rule}}": _rate("moleport_server_policy_denied_total", "rule")},
                    unit="reqps",
                    width=12,
                ),
                Panel(
                    "Requests sent again",
                    {"": _rate("moleport_server_request_retries_total")},
                    unit="reqps",
                    width=12,
                ),
            ),
        },
    ),
    Board(
        name="operator",
        title="moleport / Operator",
        pods="moleport_operator_server_up",
        rows={
            "Now": (
                Panel(
                    "Resources",
                    {"{{kind}}": "max by (kind) (moleport_operator_resources@)"},
                    kind="stat",
                ),
                Panel(
                    "Tokens that are not ready",
                    {"": "count(moleport_operator_token_ready@ == 0) or vector(0)"},
                    kind="stat",
                    width=4,
                ),
                Panel(
                    "Server answers",
                    {"": "max(moleport_operator_server_up@)"},
                    kind="stat",
                    width=4,
                ),
                Panel("Orphans", {"": "max(moleport_operator_orphans@)"}, kind="stat", width=4),
                Panel(
                    "Operators at work",
                    {"": "sum(leader_election_master_status@)"},
                    kind="stat",
                    width=4,
                ),
            ),
            "Tokens": (
                Panel(
                    "Next to expire, in",
                    {
                        "{{exported_namespace}}/{{name}}": "bottomk(20, "
                        "moleport_operator_token_expiration_timestamp_seconds@ - time())"
                    },
                    unit="s",
                    width=12,
                ),
                Panel(
                    "Credentials made and tokens revoked",
                    {
                        "made: {{reason}}": _rate("moleport_operator_issuances_total", "reason"),
                        "revoked": _rate("moleport_operator_revocations_total"),
                    },
                    width=12,
                ),
            ),
            "Rounds": (
                Panel(
                    "By result",
                    {
                        "{{controller}} {{result}}": _rate(
                            "controller_runtime_reconcile_total", "controller, result"
                        )
                    },
                ),
                Panel(
                    "Time of a round",
                    {"99 of 100": _quantile(0.99, "controller_runtime_reconcile_time_seconds")},
                    unit="s",
                ),
                Panel("Waiting keys", {"": "max(workqueue_depth@)"}),
            ),
            "Server": (
                Panel(
                    "Calls",
                    {
                        "{{operation}} {{code}}": _rate(
                            "moleport_operator_server_requests_total", "operation, code"
                        )
                    },
                    unit="reqps",
                ),
                Panel("CPU", {"{{pod}}": _rate("process_cpu_seconds_total", "pod")}),
                Panel("Memory", {"{{pod}}": "process_resident_memory_bytes@"}, unit="bytes"),
            ),
        },
    ),
)


def render(board: Board) -> str:
    """Return a dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in board.rows.items():
        panels.append(
            _placed({"type": "row", "title": title, "collapsed": False}, panels, 0, y, COLUMNS, 1)
        )
        y, x = y + 1, 0
        height = 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            panels.append(_placed(_panel(panel), panels, x, y, panel.width, height))
            x += panel.width
        y += height
    whole = {
        "uid": f"moleport-{board.name}",
        "title": board.title,
        "tags": ["moleport"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(board)},
        "panels": panels,
    }
    return json.dumps(whole, indent=1) + "\n"


def _variables(board: Board) -> list[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "$datasource"}
    query = {"type": "query", "datasource": source, "refresh": 2, "sort": 1}
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
        {
            **query,
            "name": "namespace",
            "label": "Namespace",
            "query": f"label_values({board.pods}, namespace)",
        },
        {
            **query,
            "name": "pod",
            "label": "Pod",
            "query": f'label_values({board.pods}{{namespace="$namespace"}}, pod)',
            "includeAll": True,
            "multi": True,
            "allValue": ".+",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panel(panel: Panel) -> dict[str, Any]:
    options = {"colorMode": "none"} if panel.kind == "stat" else {"legend": {"displayMode": "list"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(65 + index), "legendFormat": legend, "expr": text.replace("@", PODS)}
            for index, (legend, text) in enumerate(panel.lines.items())
        ],
    }


def _placed(
    panel: dict[str, Any], before: list[dict[str, Any]], x: int, y: int, width: int, height: int
) -> dict[str, Any]:
    return {"id": len(before) + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(render(board), encoding="utf-8")


if __name__ == "__main__":
    main()
