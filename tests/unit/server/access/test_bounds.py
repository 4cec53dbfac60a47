from dataclasses import dataclass
from typing import Any

import pytest

from moleport_server.access.bounds import LEAST_BURST_BYTES, Bandwidth, Bounds
from moleport_server.domain.token import Limits


@dataclass(eq=False)
class SomeTunnel:
    active: int = 0


@pytest.mark.parametrize(
    ("limits", "is_needed"),
    [
        ({}, False),
        ({"max_tunnels": 1, "max_agents": 1}, False),
        ({"max_connections": 0}, True),
        ({"max_connections_per_tunnel": 0}, True),
        ({"requests_per_second": 1}, True),
        ({"request_body_bytes": 0}, True),
        ({"bandwidth": 1}, True),
        ({"idle_seconds": 1}, True),
    ],
    ids=str,
)
def test_only_limits_on_what_passes_need_bounds(limits: dict[str, Any], is_needed: bool) -> None:
    assert Bounds.is_needed(Limits(**limits)) is is_needed


def test_without_a_limit_everything_passes() -> None:
    bounds = Bounds(Limits(idle_seconds=5), 0.0)

    assert all(bounds.take_request(0.0) == 0.0 for _ in range(1000))
    assert not bounds.is_full(1_000_000)
    assert bounds.bandwidth.spend(1 << 40, 0.0) == 0.0
    assert (bounds.body_bytes, bounds.idle_seconds) == (-1, 5)


def test_requests_come_in_bursts_and_at_a_rate() -> None:
    bounds = Bounds(Limits(requests_per_second=2, burst=3), 0.0)

    assert [bounds.take_request(0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bounds.take_request(0.5) == 0.0


def test_without_a_burst_one_second_may_come_at_once() -> None:
    bounds = Bounds(Limits(requests_per_second=4), 0.0)

    assert [bounds.take_request(0.0) > 0 for _ in range(5)] == [False] * 4 + [True]


def test_a_change_of_another_limit_fills_no_bucket() -> None:
    bounds = Bounds(Limits(requests_per_second=1), 0.0)
    bounds.take_request(0.0)

    bounds.change(Limits(requests_per_second=1, request_body_bytes=7), 0.0)
    assert bounds.take_request(0.0) > 0
    assert bounds.body_bytes == 7

    bounds.change(Limits(), 0.0)
    assert bounds.take_request(0.0) == 0.0


def test_connections_are_counted_per_tunnel_and_for_all_together() -> None:
    bounds = Bounds(Limits(max_connections=5, max_connections_per_tunnel=3), 0.0)
    first, second = SomeTunnel(), SomeTunnel()
    bounds.tunnels.update((first, second))

    first.active = 2
    assert not bounds.is_full(first.active)
    first.active = 3
    assert bounds.is_full(first.active)
    assert not bounds.is_full(second.active)
    second.active = 2
    assert bounds.is_full(second.active)


def test_bandwidth_is_paid_for_by_waiting() -> None:
    bandwidth = Bandwidth(1_000_000, 0.0)

    assert bandwidth.spend(250_000, 0.0) == 0.0
    assert bandwidth.spend(500_000, 0.0) == 0.5
    assert bandwidth.spend(0, 0.25) == 0.25
    assert bandwidth.spend(0, 0.5) == 0.0
    # Rest is not saved beyond the burst.
    assert bandwidth.spend(250_001, 1000.0) > 0


def test_a_small_bandwidth_still_lets_one_answer_pass_at_once() -> None:
    assert Bandwidth(1, 0.0).spend(LEAST_BURST_BYTES, 0.0) == 0.0


def test_a_raised_rate_pays_old_debts_faster() -> None:
    bandwidth = Bandwidth(1000, 0.0)
    before = bandwidth.spend(LEAST_BURST_BYTES + 100_000, 0.0)

    bandwidth.rate = 100_000

    assert (before, bandwidth.spend(0, 0.0)) == (100.0, 1.0)


def test_a_clock_that_steps_back_pays_nothing() -> None:
    bandwidth = Bandwidth(1000, 10.0)
    debt = bandwidth.spend(LEAST_BURST_BYTES + 1000, 10.0)

    assert bandwidth.spend(0, 5.0) == debt
