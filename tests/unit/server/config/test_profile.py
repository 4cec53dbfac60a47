"""The profile that a development server leaves for the CLI."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from moleport_server.config.profile import ProfileOutcome, write_private, write_profile


def write(directory: Path, server: str = "https://localhost:4040") -> ProfileOutcome:
    return write_profile(
        directory, server=server, token_file=Path("admin-token"), ca_file=Path("ca.pem")
    )


def test_the_profile_points_to_absolute_files_and_is_private(tmp_path: Path) -> None:
    outcome = write(tmp_path / "new")

    path = tmp_path / "new" / "profile.json"
    profile = json.loads(path.read_text())
    assert outcome is ProfileOutcome.WRITTEN
    assert profile == {
        "written_by": "moleport-server dev",
        "server": "https://localhost:4040",
        "token_file": str(Path("admin-token").resolve()),
        "ca_file": str(Path("ca.pem").resolve()),
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_own_profile_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, "https://localhost:1")

    assert write(tmp_path, "https://localhost:2") is ProfileOutcome.WRITTEN
    assert "localhost:2" in (tmp_path / "profile.json").read_text()


@pytest.mark.parametrize("text", ['{"server": "https://prod"}', "not json", "[]", ""])
def test_a_foreign_profile_is_never_touched(tmp_path: Path, text: Any) -> None:
    (tmp_path / "profile.json").write_text(text)

    assert write(tmp_path) is ProfileOutcome.KEPT
    assert (tmp_path / "profile.json").read_text() == text


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()

    with pytest.raises(OSError, match="target"):
        write_private(tmp_path / "target", "text")

    assert [path.name for path in tmp_path.iterdir()] == ["target"]
