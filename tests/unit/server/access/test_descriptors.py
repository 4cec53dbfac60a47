import resource

import pytest

from moleport_server.access.descriptors import RESERVE, DescriptorBudget, raise_limit


def test_the_server_keeps_a_reserve_and_room_for_handshakes() -> None:
    budget = DescriptorBudget(1024)

    assert budget.handshakes == 128
    assert budget.limit == budget.available == 1024 - RESERVE - 128


def test_the_operator_may_wish_for_less_but_not_for_more() -> None:
    assert DescriptorBudget(1024, wished=100).limit == 100
    assert DescriptorBudget(1024, wished=100_000).limit == DescriptorBudget(1024).limit


@pytest.mark.parametrize("open_files", [0, 1, 64, 256])
def test_a_tiny_process_still_serves_one_visitor(open_files: int) -> None:
    assert DescriptorBudget(open_files).limit >= 1


def test_permits_are_taken_and_given_back() -> None:
    budget = DescriptorBudget(1024, wished=2)

    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.give_back()
    assert budget.available == 1
    assert budget.take()


def test_agents_and_callers_of_the_api_leave_less_for_visitors() -> None:
    budget = DescriptorBudget(1024, wished=10)
    budget.count_others = lambda: 9

    budget.look()

    assert budget.available == 1
    assert [budget.take(), budget.take()] == [True, False]


def test_more_others_than_room_leave_nothing() -> None:
    budget = DescriptorBudget(1024, wished=10)
    budget.count_others = lambda: 99

    budget.look()

    assert budget.available == 0
    assert not budget.take()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raised = raise_limit()
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert raised == now
    assert hard in (resource.RLIM_INFINITY, now) or now == 1 << 20
