import pytest

from helpers.captures import make_tunnel
from moleport_server.registry.holds import Holds


class Waiting:
    def __init__(self, log: list[tuple[str, bool]] | None = None, name: str = "") -> None:
        self.log = [] if log is None else log
        self.name = name

    def hold_ended(self, *, returned: bool) -> None:
        self.log.append((self.name, returned))


@pytest.mark.parametrize("returned", [True, False])
def test_everybody_who_waits_for_a_tunnel_is_told_once_in_order(returned: bool) -> None:
    holds = Holds(per_tunnel=10, total=10)
    shop, other = make_tunnel(), make_tunnel("other.test")
    log: list[tuple[str, bool]] = []
    for name in "abc":
        assert holds.join(shop, Waiting(log, name))
    assert holds.join(other, Waiting(log, "x"))

    holds.end(shop, returned=returned)
    holds.end(shop, returned=returned)

    assert log == [("a", returned), ("b", returned), ("c", returned)]
    assert holds.count == 1


def test_a_tunnel_holds_no_more_than_its_bound() -> None:
    holds = Holds(per_tunnel=2, total=10)
    shop = make_tunnel()

    assert [holds.join(shop, Waiting()) for _ in range(3)] == [True, True, False]
    assert holds.join(make_tunnel("other.test"), Waiting())


def test_all_tunnels_together_hold_no_more_than_the_bound() -> None:
    holds = Holds(per_tunnel=2, total=3)
    tunnels = [make_tunnel(f"t{i}.test") for i in range(4)]

    assert [holds.join(tunnel, Waiting()) for tunnel in tunnels] == [True, True, True, False]


def test_who_leaves_makes_room_and_is_not_told() -> None:
    holds = Holds(per_tunnel=1, total=1)
    shop, waiter = make_tunnel(), Waiting()
    assert holds.join(shop, waiter)

    holds.leave(shop, waiter)
    holds.leave(shop, waiter)

    assert holds.count == 0
    assert holds.join(shop, Waiting())
    assert waiter.log == []


def test_who_joins_twice_counts_once() -> None:
    holds = Holds(per_tunnel=2, total=2)
    shop, waiter = make_tunnel(), Waiting()

    assert holds.join(shop, waiter)
    assert holds.join(shop, waiter)

    assert holds.count == 1


def test_who_joins_again_when_told_waits_for_the_next_time() -> None:
    holds = Holds(per_tunnel=2, total=2)
    shop = make_tunnel()

    class Again(Waiting):
        def hold_ended(self, *, returned: bool) -> None:
            super().hold_ended(returned=returned)
            assert holds.join(shop, self)

    waiter = Again()
    holds.join(shop, waiter)

    holds.end(shop, returned=True)

    assert waiter.log == [("", True)]
    assert holds.count == 1


def test_a_tunnel_whose_visitors_are_refused_leaves_nothing_behind() -> None:
    holds = Holds(per_tunnel=0, total=1)

    assert not holds.join(make_tunnel(), Waiting())

    assert holds._waiting == {}
