from helpers.clock import FakeClock
from moleport_server.registry.tombstones import KEPT_SECONDS, MOST, Tombstones


def test_an_id_is_remembered_for_longer_than_a_client_asks() -> None:
    clock = FakeClock()
    tombstones = Tombstones(clock.monotonic)
    tombstones.add("S-1")

    clock.advance(KEPT_SECONDS - 1)
    before = "S-1" in tombstones
    clock.advance(2)

    assert KEPT_SECONDS > 60
    assert (before, "S-1" in tombstones, "S-2" in tombstones) == (True, False, False)


def test_an_id_can_be_forgotten() -> None:
    tombstones = Tombstones(FakeClock().monotonic)
    tombstones.add("S-1")

    tombstones.discard("S-1")
    tombstones.discard("S-unknown")

    assert "S-1" not in tombstones


def test_the_oldest_make_room() -> None:
    tombstones = Tombstones(FakeClock().monotonic)
    for number in range(MOST + 1):
        tombstones.add(str(number))

    assert "0" not in tombstones
    assert "1" in tombstones
    assert str(MOST) in tombstones
