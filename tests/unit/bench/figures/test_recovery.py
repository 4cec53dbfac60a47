import math

from moleport_bench.figures.recovery import judge
from moleport_bench.steady import Visit

EVENT = 100.0


def visit(began: float, waited: float = 0.001, *, succeeded: bool = True) -> Visit:
    return Visit(EVENT + began, EVENT + began + waited, succeeded)


def test_recovery_lasts_until_the_first_answer_after_the_last_failure() -> None:
    outcome = judge(
        [
            visit(-0.1),
            visit(0.01, succeeded=False),
            visit(0.02),
            visit(0.30, succeeded=False),
            visit(0.35, 0.05),
            visit(0.50),
        ],
        EVENT,
    )

    assert outcome.failed == 2
    assert math.isclose(outcome.recovery_seconds, 0.40)


def test_a_request_that_waited_is_no_failure_but_counts_as_the_longest_wait() -> None:
    outcome = judge([visit(-0.1), visit(0.005, 0.8), visit(0.9)], EVENT)

    assert outcome.failed == 0
    assert math.isclose(outcome.longest_wait, 0.8)
    assert math.isclose(outcome.recovery_seconds, 0.805)


def test_who_never_answers_again_has_not_recovered() -> None:
    outcome = judge([visit(-0.1), visit(0.1, succeeded=False)], EVENT)

    assert outcome.recovery_seconds == math.inf


def test_a_request_that_fails_late_belongs_to_when_it_began() -> None:
    outcome = judge([visit(-0.1), visit(0.1, 10.0, succeeded=False), visit(0.3), visit(6.0)], EVENT)

    assert outcome.failed == 1
    assert math.isclose(outcome.recovery_seconds, 0.301)
