import sys
from pathlib import Path

from moleport_bench import procfs
from moleport_bench.processes import Processes
from moleport_bench.waiting import wait_until

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def child_of(output: str) -> int:
    return int(output.split(maxsplit=1)[0])


def test_children_end_with_their_program_even_in_a_session_of_their_own(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        family = processes.start("family", [sys.executable, "-c", FAMILY])
        wait_until(lambda: bool(family.output()), "the child")
        child = child_of(family.output())
        known = procfs.stat_of(child)

    wait_until(lambda: procfs.stat_of(child) != known, "the end of the child")
    assert known is not None
    assert family.has_ended


def test_a_killed_program_can_be_started_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    with Processes(tmp_path) as processes:
        first = processes.start("one", [sys.executable, "-c", FAMILY])
        first.kill()
        second = processes.start("one", command)
        wait_until(lambda: "up" in second.output() or second.has_ended, "the second")

        assert first.has_ended
        assert second.last_words().startswith("up")


def test_the_environment_holds_nothing_of_this_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(*sorted(os.environ))"]
    with Processes(tmp_path) as processes:
        shown = processes.start("shown", command, {"EXTRA": "1"})
        wait_until(lambda: shown.has_ended, "the end")

    names = set(shown.output().split())
    assert {"PATH", "HOME", "LANG", "EXTRA"} <= names
    assert not {name for name in names if name.startswith(("MOLEPORT", "SSH", "PYTEST"))}
