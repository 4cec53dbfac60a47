import pytest

from helpers.operator_records import attached, token
from moleport_operator.plan.timing import REQUIRED_PERIOD_SECONDS, Schedule, schedule

HOUR = 3600


@pytest.mark.parametrize(
    ("spec", "policies", "lifetime", "renew_after", "overlap"),
    [
        ({}, [], None, None, HOUR),
        ({"lifetime": "3h"}, [], 3 * HOUR, 2 * HOUR, 1800),
        ({"lifetime": "720h"}, [], 720 * HOUR, 480 * HOUR, HOUR),
        ({"lifetime": "3h", "rotation": {"mode": "Disabled"}}, [], 3 * HOUR, None, 1800),
        (
            {"rotation": {"mode": "Periodic", "interval": "24h", "overlap": "5m"}},
            [],
            None,
            24 * HOUR,
            300,
        ),
        (
            {"lifetime": "24h", "rotation": {"mode": "Periodic", "interval": "2h"}},
            [],
            24 * HOUR,
            2 * HOUR,
            1800,
        ),
        ({"lifetime": "10h"}, [attached(max_lifetime=3 * HOUR)], 3 * HOUR, 2 * HOUR, 1800),
        ({}, [attached(max_lifetime=6 * HOUR)], 6 * HOUR, 4 * HOUR, HOUR),
        (
            {"rotation": {"mode": "Disabled"}},
            [attached(requires_rotation=True)],
            None,
            REQUIRED_PERIOD_SECONDS,
            HOUR,
        ),
        (
            {"lifetime": "3h", "rotation": {"mode": "Disabled"}},
            [attached(requires_rotation=True)],
            3 * HOUR,
            2 * HOUR,
            1800,
        ),
    ],
    ids=[
        "nothing asked",
        "renewal at two thirds",
        "overlap at most an hour",
        "rotation disabled",
        "periodic",
        "periodic within a lifetime",
        "a policy shortens",
        "a policy gives a lifetime",
        "a policy requires rotation",
        "a policy overrules disabled",
    ],
)
def test_periods_follow_spec_and_policies(
    spec: dict[str, object],
    policies: list[object],
    lifetime: int | None,
    renew_after: int | None,
    overlap: int,
) -> None:
    found = schedule(token(spec=spec).spec, policies)  # type: ignore[arg-type]  # table of records

    assert found == Schedule(lifetime=lifetime, renew_after=renew_after, overlap=overlap)


def test_ends_and_renewals_count_from_the_issue() -> None:
    periods = Schedule(lifetime=30, renew_after=20, overlap=5)
    forever = Schedule(lifetime=None, renew_after=None, overlap=5)

    assert (periods.not_after(100), periods.renewal_at(100)) == (130, 120)
    assert (forever.not_after(100), forever.renewal_at(100)) == (None, None)
