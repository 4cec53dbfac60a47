import re

import pytest

from moleport_server.edge.refusals import REASON_PHRASES, Refusal


def test_codes_are_unique_and_look_alike() -> None:
    codes = [case.code for case in Refusal]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("case", Refusal, ids=lambda case: case.code)
def test_each_case_tells_people_what_happened_and_what_to_do(case: Refusal) -> None:
    facts = case.value

    assert case.name.lower().replace("_", "-") == facts.code
    assert facts.status in REASON_PHRASES
    assert facts.happened.endswith(".")
    assert facts.advice.endswith(".")
    assert (facts.retry_after is not None) is (facts.status in {429, 503})


@pytest.mark.parametrize(
    ("case", "status", "retry_after"),
    [
        (Refusal.TUNNEL_NOT_FOUND, 404, None),
        (Refusal.AGENT_AWAY, 503, 5),
        (Refusal.UPSTREAM_REFUSED, 502, None),
        (Refusal.UPSTREAM_LOST, 502, None),
        (Refusal.BUSY, 503, 1),
        (Refusal.UPSTREAM_TIMEOUT, 504, None),
        (Refusal.AUTH_REQUIRED, 401, None),
        (Refusal.ADDRESS_DENIED, 403, None),
        (Refusal.RATE_LIMITED, 429, 1),
        (Refusal.BODY_TOO_LARGE, 413, None),
        (Refusal.HEAD_TOO_LARGE, 431, None),
        (Refusal.BAD_REQUEST, 400, None),
    ],
    ids=lambda value: value.code if isinstance(value, Refusal) else None,
)
def test_statuses_are_those_that_were_decided(
    case: Refusal, status: int, retry_after: int | None
) -> None:
    assert (case.status, case.value.retry_after) == (status, retry_after)
