import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moleport_server.errors import StoreError, StoreLocked
from moleport_server.store.directory import DataDirectory

HOLDER = """
import sys
from pathlib import Path
from moleport_server.store.directory import DataDirectory

with DataDirectory(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "data") as directory:
        assert directory.path.stat().st_mode & 0o777 == 0o700
        assert directory.lock_path.stat().st_mode & 0o777 == 0o600


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)

    with DataDirectory(tmp_path):
        pass

    assert tmp_path.stat().st_mode & 0o777 == 0o770


def test_the_files_have_their_places(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)

    assert directory.state_path == tmp_path / "state.db"
    assert directory.captures_path == tmp_path / "captures.db"


def test_a_second_server_is_told_which_directory_is_in_use(tmp_path: Path) -> None:
    with (
        DataDirectory(tmp_path),
        pytest.raises(StoreLocked, match=f"another server uses the data directory {tmp_path}"),
        DataDirectory(tmp_path),
    ):
        pass


def test_entering_twice_is_refused_and_keeps_the_lock(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        with pytest.raises(StoreLocked), directory:
            pass

        with pytest.raises(StoreLocked), DataDirectory(tmp_path):
            pass


async def test_a_directory_is_free_after_its_block(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    async with directory:
        pass

    with DataDirectory(tmp_path):
        pass
    async with directory:
        pass


def test_a_refused_lock_leaks_no_descriptor(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(StoreLocked), DataDirectory(tmp_path):
                pass

        assert len(list(Path("/dev/fd").iterdir())) == before


def test_the_lock_of_another_process_ends_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StoreLocked), DataDirectory(tmp_path):
            pass

        holder.send_signal(signal.SIGKILL)
        holder.wait(10)

    with DataDirectory(tmp_path):
        pass


def test_a_path_that_is_a_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises(StoreError, match="data: File exists"), DataDirectory(tmp_path / "data"):
        pass
