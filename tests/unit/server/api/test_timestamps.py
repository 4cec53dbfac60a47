import pytest

from moleport_server.api.timestamps import rfc3339, rfc3339_or_none, rfc3339_whole


@pytest.mark.parametrize(
    ("seconds", "text", "whole"),
    [
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        (1_750_000_000.5, "2025-06-15T15:06:40.500000Z", "2025-06-15T15:06:40+00:00"),
        (1_750_000_000.0000001, "2025-06-15T15:06:40Z", "2025-06-15T15:06:40+00:00"),
        (1_750_000_000.000001, "2025-06-15T15:06:40.000001Z", "2025-06-15T15:06:40+00:00"),
        (1_750_000_000.999999, "2025-06-15T15:06:40.999999Z", "2025-06-15T15:06:40+00:00"),
    ],
)
def test_times_have_the_two_forms_of_the_seed(seconds: float, text: str, whole: str) -> None:
    assert rfc3339(seconds) == rfc3339_or_none(seconds) == text
    assert rfc3339_whole(seconds) == whole


def test_a_time_that_has_not_come_is_none() -> None:
    assert rfc3339_or_none(None) is None
