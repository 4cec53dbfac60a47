import json
import stat
from pathlib import Path
from typing import Any

import pytest

from moleport_server import development
from moleport_server.config.checks import endpoints
from moleport_server.config.environment import read_text
from moleport_server.config.load import load
from moleport_server.config.settings import ServerSettings


def settings_of(data_dir: Path, **arguments: Any) -> ServerSettings:
    development.prepare_data_dir(data_dir)
    presets = development.presets(data_dir, **arguments)
    return load({}, {}, read_text, presets=presets)


def test_the_presets_are_complete_and_stay_on_loopback(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")

    listening = endpoints(settings.listen)
    assert {endpoint.host for endpoint in listening.values()} == {"127.0.0.1"}
    assert [endpoint.port for endpoint in listening.values()] == [8080, 8443, 4040, 4041, 9090]
    assert settings.listen.tcp_host == "127.0.0.1"
    assert str(settings.listen.tcp_ports) == "20000-20099"
    assert settings.server.domains == ("localhost",)
    assert settings.server.drain_delay_seconds == 0
    assert settings.public.control_url == "https://localhost:4040"


def test_all_ports_move_together(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, port_base=30000)

    ports = [endpoint.port for endpoint in endpoints(settings.listen).values()]
    assert ports == [30000, 30001, 30002, 30003, 30004]
    assert str(settings.listen.tcp_ports) == "30100-30199"
    assert settings.public.control_url == "https://localhost:30002"


def test_the_highest_port_base_still_fits(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, port_base=development.MAX_PORT_BASE)

    assert settings.listen.tcp_ports.last == 65_535


def test_the_admin_token_is_random_private_and_kept(tmp_path: Path) -> None:
    development.prepare_data_dir(tmp_path / "a")
    development.prepare_data_dir(tmp_path / "b")
    file = tmp_path / "a" / "admin-token"
    token = file.read_text()

    development.prepare_data_dir(tmp_path / "a")

    assert len(token.strip()) >= 32
    assert token != (tmp_path / "b" / "admin-token").read_text()
    assert file.read_text() == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_given_token_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("my-token")

    settings = settings_of(tmp_path / "data", admin_token_file=tmp_path / "mine")

    assert settings.auth.admin_token_file == tmp_path / "mine"


def announced(settings: ServerSettings, profile_dir: Path | None) -> str:
    return "\n".join(development.announcement(settings, profile_dir=profile_dir))


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
