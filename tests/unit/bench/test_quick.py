import pytest

from helpers.bench_records import record_of
from moleport_bench.figures.base import Better
from moleport_bench.figures.load import REQUESTS_FIGURE
from moleport_bench.quick import row, verdict
from moleport_bench.record import Record

RATE = REQUESTS_FIGURE.columns[0]


@pytest.mark.parametrize(
    ("current", "before", "better", "said"),
    [
        (0.50, 0.40, Better.HIGHER, "better"),
        (0.30, 0.40, Better.HIGHER, "worse"),
        (0.41, 0.40, Better.HIGHER, "the same"),
        (3.0, 4.0, Better.LOWER, "better"),
        (5.0, 4.0, Better.LOWER, "worse"),
        (5.0, None, Better.LOWER, "not recorded"),
    ],
)
def test_a_ratio_is_compared_with_the_recorded_one(
    current: float, before: float | None, better: Better, said: str
) -> None:
    assert verdict(current, before, better) == said


def test_a_row_has_both_sides_and_both_ratios() -> None:
    now = record_of(
        "requests", {"nginx-1hop": [{"per_second": 100.0}], "moleport-http": [{"per_second": 60.0}]}
    )
    before = record_of(
        "requests", {"nginx-1hop": [{"per_second": 80.0}], "moleport-http": [{"per_second": 40.0}]}
    )

    assert row(now, before, REQUESTS_FIGURE, RATE) == (
        "requests: requests/s (1/s)",
        "100",
        "60.0",
        "0.60",
        "0.50",
        "better",
    )


def test_what_was_not_measured_has_no_row() -> None:
    assert row(Record(), Record(), REQUESTS_FIGURE, RATE) == ()
