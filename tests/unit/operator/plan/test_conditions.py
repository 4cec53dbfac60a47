from moleport_operator.plan.conditions import Condition, find_condition, merge_conditions

READY = Condition("Ready", "True", "Issued", "fine")


def test_the_time_of_a_transition_stays_while_the_status_stays() -> None:
    first = merge_conditions([], [READY], generation=1, now=0)

    second = merge_conditions(
        first, [Condition("Ready", "True", "Rotated", "new")], generation=2, now=60
    )

    assert second[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("Rotated", 2)


def test_the_time_of_a_transition_moves_when_the_status_flips() -> None:
    first = merge_conditions([], [READY], generation=1, now=0)

    second = merge_conditions(first, [Condition("Ready", "False", "x", "")], generation=1, now=60)

    assert second[0]["lastTransitionTime"] == "1970-01-01T00:01:00Z"


def test_a_condition_that_is_over_goes() -> None:
    old = merge_conditions([], [READY, Condition("Stalled", "True", "x", "")], generation=1, now=0)

    assert [c["type"] for c in merge_conditions(old, [READY], generation=1, now=1)] == ["Ready"]


def test_a_condition_is_found_by_its_type() -> None:
    status = {"conditions": merge_conditions([], [READY], generation=1, now=0)}

    assert find_condition(status, "Ready")["reason"] == "Issued"
    assert find_condition(status, "Stalled") == {}
