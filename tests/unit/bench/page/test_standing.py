import pytest

from helpers.bench_records import record_of
from moleport_bench.figures.base import Better
from moleport_bench.figures.load import REQUESTS_FIGURE
from moleport_bench.page.numbers import Middle
from moleport_bench.page.standing import outcome, standing_lines, why_lines
from moleport_bench.peers import PEERS


def cell(value: float, spread: float = 0.0) -> Middle:
    return Middle(value, value - spread, value + spread, 3)


@pytest.mark.parametrize(
    ("ours", "best", "better", "said"),
    [
        pytest.param(cell(20), cell(10), Better.HIGHER, "moleport leads 2.0 ×", id="faster"),
        pytest.param(cell(10), cell(20), Better.HIGHER, "**behind 2.0 ×**", id="slower"),
        pytest.param(cell(10), cell(20), Better.LOWER, "moleport leads 2.0 ×", id="lighter"),
        pytest.param(cell(0), cell(20), Better.LOWER, "moleport leads", id="none fails"),
        pytest.param(cell(5), cell(5), Better.LOWER, "level", id="equal"),
        pytest.param(
            cell(11, 2),
            cell(10, 2),
            Better.HIGHER,
            "level: ranges overlap, ahead 1.1 ×",
            id="overlap",
        ),
    ],
)
def test_who_leads_is_said_from_the_numbers(
    ours: Middle, best: Middle, better: Better, said: str
) -> None:
    assert outcome(ours, best, better) == said


def test_the_best_of_each_kind_is_the_one_to_beat() -> None:
    record = record_of(
        "requests",
        {
            "moleport-tcp": [{"per_second": 30.0}],
            "ssh": [{"per_second": 20.0}],
            "rathole-noise": [{"per_second": 25.0}],
            "bore": [{"per_second": 40.0}],
        },
    )

    lines = list(standing_lines(record, [REQUESTS_FIGURE], PEERS))

    assert [line.split(" | ")[2:] for line in lines[2:]] == [
        ["encrypted TCP", "rathole-noise 25.0", "moleport leads 1.2 × |"],
        ["TCP in the clear", "bore 40.0", "**behind 1.3 ×** |"],
    ]


def test_why_is_told_in_cores() -> None:
    ours = {"per_second": 20_000.0, "cpu": 5.0, "server_cpu": 4.0, "agent_cpu": 1.0}
    record = record_of("requests", {"moleport-http": [ours], "nginx-1hop": [{"cpu": 2.0}]})

    [sentence, *_] = why_lines(record)

    assert "1.00 cores" in sentence
    assert sentence.endswith("single thread takes 0.80.")
