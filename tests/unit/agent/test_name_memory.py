from pathlib import Path

from moleport_agent.name_memory import KEPT_NAMES, NameMemory


def test_a_name_is_recalled_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "state" / "names.json"
    NameMemory(path).remember("key", "quick-otter.localhost")

    assert NameMemory(path).recall("key") == "quick-otter.localhost"
    assert NameMemory(path).recall("other") is None


def test_only_the_latest_names_are_kept(tmp_path: Path) -> None:
    memory = NameMemory(tmp_path / "names.json")
    for number in range(KEPT_NAMES + 2):
        memory.remember(str(number), "name")

    assert memory.recall("0") is None
    assert memory.recall("1") is None
    assert memory.recall("2") == "name"


def test_a_damaged_file_is_no_memory_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    for content in (
        "{",
        "[]",
        '{"key": 5}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ):
        path.write_text(content, "utf-8")

        assert NameMemory(path).recall("key") is None

    NameMemory(path).remember("key", "fresh")
    assert NameMemory(path).recall("key") == "fresh"


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    memory = NameMemory(blocker / "names.json")

    memory.remember("key", "name")

    assert memory.recall("key") is None


def test_without_a_file_nothing_is_remembered() -> None:
    memory = NameMemory(None)
    memory.remember("key", "name")

    assert memory.recall("key") is None
