import math

import pytest

from helpers.bench_records import record_of
from moleport_bench.page.numbers import Middle, middle, ratio, write_middle, write_number


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (63898.4, "63,898"),
        (421.7, "422"),
        (16.84, "16.8"),
        (1.206, "1.21"),
        (0.0512, "0.051"),
        (0.0, "0"),
        (math.inf, "–"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, written: str) -> None:
    assert write_number(value) == written


def test_a_cell_shows_the_range_of_its_rounds() -> None:
    record = record_of("bulk", {"ssh": [{"down": 3.0}, {"down": 1.0}, {"down": 2.0}]})

    assert write_middle(middle(record.of("bulk", "ssh"), "down")) == "2.00 (1.00–3.00)"


def test_one_round_has_no_range_and_none_is_a_dash() -> None:
    assert write_middle(Middle(2.0, 2.0, 2.0, 1)) == "2.00"
    assert write_middle(None) == "–"


def test_a_ratio_compares_round_by_round() -> None:
    # The second round was slow for both: the medians alone would say 1.0.
    record = record_of(
        "requests",
        {
            "ours": [{"rate": 50.0}, {"rate": 20.0}, {"rate": 60.0}],
            "other": [{"rate": 100.0}, {"rate": 40.0}, {"rate": 50.0}],
        },
    )

    assert ratio(record, "requests", ("ours", "other"), "rate") == 0.5


def test_peers_of_different_runs_are_compared_by_their_medians() -> None:
    record = record_of("requests", {"ours": [{"rate": 50.0}]}, run="one")
    for sample in record_of("requests", {"other": [{"rate": 25.0}]}, run="two").samples:
        record.add(sample)

    assert ratio(record, "requests", ("ours", "other"), "rate") == 2.0


def test_without_the_other_there_is_no_ratio() -> None:
    record = record_of("requests", {"ours": [{"rate": 50.0}]})

    assert ratio(record, "requests", ("ours", "other"), "rate") is None
