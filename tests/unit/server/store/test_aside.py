import re
from pathlib import Path

from moleport_server.store.aside import free_name


def test_a_name_tells_the_file_the_reason_and_the_time(tmp_path: Path) -> None:
    name = free_name(tmp_path / "captures.db", "corrupt")

    assert name.parent == tmp_path
    assert re.fullmatch(r"captures\.db\.corrupt-\d{8}T\d{6}Z", name.name)


def test_names_that_exist_are_never_given(tmp_path: Path) -> None:
    names = set()
    for _ in range(5):
        name = free_name(tmp_path / "state.db", "before-restore")
        name.touch()
        names.add(name)

    assert len(names) == 5
