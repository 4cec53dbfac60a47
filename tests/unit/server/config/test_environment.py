"""The process around the settings."""

from pathlib import Path

import pytest

from moleport_server.config import environment


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLEPORT__LOG__LEVEL", "debug")

    copy = environment.environment()
    monkeypatch.delenv("MOLEPORT__LOG__LEVEL")

    assert copy["MOLEPORT__LOG__LEVEL"] == "debug"
    assert "MOLEPORT__LOG__LEVEL" not in environment.environment()


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbftoken\n")

    assert environment.read_text(tmp_path / "t") == "token\n"


def test_reading_is_bounded() -> None:
    text = environment.read_text(Path("/dev/zero"))

    assert len(text) == environment.MAX_READ_BYTES + 1


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xff\xfe")

    with pytest.raises(UnicodeDecodeError):
        environment.read_text(tmp_path / "t")


def test_the_profile_directory_can_be_chosen(tmp_path: Path) -> None:
    assert environment.profile_directory({"MOLEPORT_CONFIG_DIR": str(tmp_path)}) == tmp_path
    assert environment.profile_directory({}).name == "moleport"


def test_a_development_server_has_a_directory_of_its_own() -> None:
    assert environment.state_directory().parts[-2:] == ("moleport", "server")
