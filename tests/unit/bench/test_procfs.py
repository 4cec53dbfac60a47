import os
import subprocess
import sys

from moleport_bench import procfs

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:2EE3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 0100007F:2EE3 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0
   2: 0100007F:2EE3 0100007F:C351 01 00000000:00000000 00:00000000 00000000     0
   3: 0100007F:2EE3 0100007F:C352 06 00000000:00000000 00:00000000 00000000     0
   4: 0100007F:C350 0100007F:2EE3 01 00000000:00000000 00:00000000 00000000     0
"""


def test_the_name_of_a_program_may_look_like_the_fields_behind_it() -> None:
    fields = " ".join(str(number) for number in range(4, 53))

    stat = procfs.parse_stat(f"77 (a) b (1 2) S {fields}")

    assert stat.parent == 4
    assert stat.ticks == 14 + 15 + 16 + 17
    assert stat.started == 22


def test_connections_are_counted_on_the_listening_side() -> None:
    assert procfs.established(12_003, TABLE) == 2


def test_a_listener_is_found_without_connecting() -> None:
    assert procfs.is_listening(12_003, TABLE)
    assert not procfs.is_listening(50_000, TABLE)


def test_a_process_that_ended_has_no_time_and_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(20)

    assert procfs.stat_of(ended.pid) is None
    assert procfs.resident_bytes([ended.pid]) == 0
    assert procfs.cpu_seconds([ended.pid]) == 0


def test_this_process_uses_memory() -> None:
    assert procfs.resident_bytes([os.getpid()]) > 1 << 20


def test_children_belong_to_the_tree() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = procfs.tree(os.getpid())
        child.communicate(b"\n", timeout=20)

    assert found[0] == os.getpid()
    assert child.pid in found
