import os

from moleport_server.vitals import read_vitals


def test_the_process_is_told_truly() -> None:
    before = read_vitals()
    with open(os.devnull) as extra:  # noqa: PTH123 - one more descriptor is all it is for
        after = read_vitals()

    assert extra.closed
    assert before.pid == os.getpid()
    assert before.resident_bytes > 1_000_000
    assert before.heap_bytes > 0
    assert (before.descriptors, after.descriptors) != (None, None)
    assert (after.descriptors or 0) - (before.descriptors or 0) == 1
