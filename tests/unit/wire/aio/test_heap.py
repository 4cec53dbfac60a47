import subprocess
import sys

import pytest

from moleport_wire.aio.heap import KEPT_BYTES

SCRIPT = """
import resource, sys
from moleport_wire.aio.heap import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def transfer():
    pieces = [bytes(65_536) for _ in range(4)]
    return b"".join(pieces)

transfer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    transfer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", SCRIPT, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="another allocator")
def test_a_transfer_touches_no_fresh_pages_again_and_again() -> None:
    kept, given_back = faults("keep"), faults("leave")

    # 200 transfers of half a MiB; with another allocator than glibc's both are small.
    assert kept < 2 * KEPT_BYTES // 4096
    assert kept <= given_back
