import pytest

from helpers.bench_records import record_of
from moleport_bench.figures import FIGURES
from moleport_bench.page.goals import GOALS, goal_lines
from moleport_bench.peers import PEERS
from moleport_bench.record import Record

RATE_GOALS = [
    goal for goal in GOALS if goal.figure == "requests" and goal.subject.startswith("HTTP")
]


@pytest.mark.parametrize(
    ("rate", "line"),
    [
        pytest.param(60.0, "| ≥ 0.5 × nginx-1hop | 0.6 × | met |", id="met"),
        pytest.param(40.0, "| ≥ 0.5 × nginx-1hop | 0.4 × | **not met** |", id="not met"),
    ],
)
def test_the_verdict_comes_from_the_numbers(rate: float, line: str) -> None:
    cells = {"moleport-http": [{"per_second": rate}], "nginx-1hop": [{"per_second": 100.0}]}

    lines = list(goal_lines(record_of("requests", cells), RATE_GOALS))

    assert lines[-1].endswith(line)


def test_what_was_not_measured_is_not_called_met() -> None:
    lines = list(goal_lines(Record()))

    assert all(line.endswith("not measured |") for line in lines[2:])
    assert len(lines) == len(GOALS) + 2


def test_a_worst_round_decides_where_nothing_may_fail() -> None:
    cells = {"moleport-http": [{"cut_failed": 0.0}, {"cut_failed": 1.0}, {"cut_failed": 0.0}]}

    [line] = [
        line for line in goal_lines(record_of("recovery", cells)) if "link cut: failed" in line
    ]

    assert line.endswith("| 1.00 | **not met** |")


def test_failures_are_compared_with_peers_that_come_back() -> None:
    record = record_of(
        "recovery",
        {
            "moleport-http": [{"server_failed": 50.0, "server_recovery": 0.1}],
            "rathole": [{"server_failed": 60.0, "server_recovery": 0.3}],
            "bore": [{"server_failed": 10.0}],
        },
    )

    [line] = [line for line in goal_lines(record) if "the best peer that comes back" in line]

    assert line.endswith("| -10.0 more | met |")


def test_goals_ask_for_columns_that_figures_measure() -> None:
    names = {figure.name for figure in FIGURES}

    assert {goal.figure for goal in GOALS} <= names
    assert {"nginx-1hop", "nginx-1hop-https", "rathole-noise", "frp-http"} <= {
        p.name for p in PEERS
    }
