import json
from pathlib import Path

import pytest

from moleport_server import development
from moleport_server.announcement import announcement
from moleport_server.config.environment import read_text
from moleport_server.config.load import load
from moleport_server.config.settings import ServerSettings


def settings_of(data_dir: Path) -> ServerSettings:
    development.prepare_data_dir(data_dir)
    presets = development.presets(data_dir)
    return load({}, {}, read_text, presets=presets)


def announced(settings: ServerSettings, profile_dir: Path | None) -> str:
    return "\n".join(announcement(settings, profile_dir=profile_dir))


def test_the_announcement_writes_the_profile_and_tells_the_next_command(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")

    text = announced(settings, tmp_path / "config")

    profile = json.loads((tmp_path / "config" / "profile.json").read_text())
    assert profile["server"] == "https://localhost:4040"
    assert profile["token_file"] == str((tmp_path / "data" / "admin-token").resolve())
    assert profile["ca_file"] == str((tmp_path / "data" / "tls" / "ca.pem").resolve())
    assert text.endswith("moleport http 3000")
    assert "http://<name>.localhost:8080" in text
    assert "https://<name>.localhost:8443" in text
    assert (tmp_path / "data" / "admin-token").read_text().strip() not in text


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("none", "No profile was written."),
        ("foreign", "was written by somebody else and stays as it is."),
        ("unwritable", "cannot be written (Not a directory)."),
    ],
)
def test_without_a_profile_the_variables_are_told(tmp_path: Path, kind: str, reason: str) -> None:
    settings = settings_of(tmp_path / "data")
    profile_dir: Path | None = tmp_path / "config"
    (tmp_path / "config").mkdir()
    match kind:
        case "none":
            profile_dir = None
        case "foreign":
            (tmp_path / "config" / "profile.json").write_text('{"server": "https://prod"}')
        case "unwritable":
            (tmp_path / "file").write_text("")
            profile_dir = tmp_path / "file" / "config"

    text = announced(settings, profile_dir)

    assert reason in text
    assert "export MOLEPORT_SERVER=https://localhost:4040" in text
    assert f"export MOLEPORT_TOKEN_FILE={tmp_path / 'data' / 'admin-token'}" in text
    assert f"export MOLEPORT_CA_FILE={tmp_path / 'data' / 'tls' / 'ca.pem'}" in text
