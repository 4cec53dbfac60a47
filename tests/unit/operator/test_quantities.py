import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_operator.errors import InvalidResource
from moleport_operator.quantities import (
    format_time,
    format_time_or_none,
    parse_duration,
    parse_quantity,
    parse_time,
    parse_time_or_none,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1m1s", 3661), ("0s", 0)]
)
def test_a_duration_is_read_in_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "1d", "1.5h", "h", "-1h", "1h ", "1h1h1h1h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidResource, match="1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("5", 5), ("10k", 10_000), ("10Ki", 10_240), ("1.5M", 1_500_000), ("2Gi", 2**31)],
)
def test_a_quantity_is_read_as_a_number(value: int | str, number: int) -> None:
    assert parse_quantity(value) == number


@pytest.mark.parametrize("value", ["", "-1", "1m", "Mi", "1 Mi", "1e3"])
def test_what_is_no_quantity_is_refused(value: str) -> None:
    with pytest.raises(InvalidResource, match="10Mi"):
        parse_quantity(value)


@given(st.integers(0, 4_000_000_000))
def test_a_time_survives_its_text(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds


def test_no_time_stays_none() -> None:
    assert (parse_time_or_none(""), parse_time_or_none(None), format_time_or_none(None)) == (
        None,
        None,
        None,
    )


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidResource, match="is no time"):
        parse_time("yesterday")
