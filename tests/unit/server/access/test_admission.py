import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.access.admission import PreAuthGate


def test_an_address_has_its_own_bound() -> None:
    gate = PreAuthGate(per_address=2, in_all=10)

    assert gate.enter("192.0.2.1")
    assert gate.enter("192.0.2.1")
    assert not gate.enter("192.0.2.1")
    assert gate.enter("192.0.2.2")


def test_addresses_of_one_ipv6_network_share_theirs() -> None:
    gate = PreAuthGate(per_address=1, in_all=10)

    assert gate.enter("2001:db8::1")
    assert not gate.enter("2001:db8::2")
    assert gate.enter("2001:db8:0:1::1")


def test_all_strangers_together_have_a_bound() -> None:
    gate = PreAuthGate(per_address=2, in_all=3)

    assert [gate.enter(f"192.0.2.{number}") for number in range(4)] == [True, True, True, False]
    gate.leave("192.0.2.0")
    assert gate.enter("192.0.2.9")


def test_leaving_without_having_entered_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="entered"):
        PreAuthGate().leave("192.0.2.1")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_counts_are_right_after_any_history(steps: list[tuple[bool, int]]) -> None:
    gate = PreAuthGate(per_address=3, in_all=6)
    inside = [0, 0, 0, 0]

    for is_entering, number in steps:
        address = f"192.0.2.{number}"
        if is_entering:
            expected = inside[number] < 3 and sum(inside) < 6
            assert gate.enter(address) is expected
            inside[number] += expected
        elif inside[number]:
            gate.leave(address)
            inside[number] -= 1
        assert gate.waiting == sum(inside)
