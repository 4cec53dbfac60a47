import stat
from pathlib import Path
from typing import Any

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
