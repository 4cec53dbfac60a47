import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from moleport_server import main
from moleport_server.config.settings import ServerSettings
from moleport_server.errors import StoreLocked
from moleport_server.listening import BoundListeners

TOKEN = {"MOLEPORT__AUTH__ADMIN_TOKEN": "hunter2"}
PLAIN = ("--set", "listen.control_tls=false")
ALL_OFF = tuple(
    part
    for name in ("edge_http", "control", "api", "metrics")
    for part in ("--set", f"listen.{name}=off")
)


class RecordingApp(ModuleType):
    """Takes the place of the server and tells what it was started with."""

    def __init__(self) -> None:
        super().__init__("moleport_server.app.server")
        self.started: list[ServerSettings] = []
        self.result: int | Exception = 0

    def run(
        self,
        settings: ServerSettings,
        bound: BoundListeners,
        leased: BoundListeners,
        *,
        banner: Callable[[], None] | None = None,
    ) -> int:
        bound.close()
        leased.close()
        self.started.append(settings)
        if banner is not None:
            banner()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> RecordingApp:
    import moleport_server.app
    from moleport_server import logs

    recording = RecordingApp()
    monkeypatch.setitem(sys.modules, "moleport_server.app.server", recording)
    monkeypatch.setattr(moleport_server.app, "server", recording, raising=False)
    monkeypatch.setattr(logs, "configure", lambda _settings: None)
    return recording


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def invoke(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    given = TOKEN if environ is None else environ
    return CliRunner().invoke(main.cli, arguments, env=dict[str, str | None](given))


def test_every_command_documents_its_exit_codes() -> None:
    commands = ("run", "dev", "check-config", "import-config", "backup", "restore")
    for command in ((), *((command,) for command in commands)):
        result = invoke(*command, "--help")

        assert result.exit_code == 0
        assert "4  the data directory or a database was refused" in result.output


def test_the_list_of_commands_says_whole_sentences() -> None:
    listed = invoke("--help", environ={"COLUMNS": "80"}).output

    assert "Copy tokens, leases and history into one file." in listed
    assert "..." not in listed.partition("Commands:")[2]


def test_the_version_is_told() -> None:
    assert invoke("--version").output.startswith("moleport-server, version ")


def test_check_config_prints_what_is_in_effect_without_secrets() -> None:
    result = invoke("check-config", *PLAIN, "--log-level", "debug")

    assert result.exit_code == 0
    assert 'level = "debug"  # from flag --set log.level' in result.stdout
    assert "hunter2" not in result.output


def test_check_config_tells_all_problems_at_once() -> None:
    result = invoke("check-config", *PLAIN, "--set", "log.level=loud", "--set", "log.formt=json")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "moleport-server: log.level: expected" in result.stderr
    assert "moleport-server: log.formt: unknown setting" in result.stderr
    assert "did you mean log.format?" in result.stderr


def test_a_settings_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[server]\nregion = "moon"\n')

    result = invoke("check-config", *PLAIN, "--config", str(file))

    assert f'region = "moon"  # from file {file}' in result.stdout


def test_an_assignment_needs_a_value() -> None:
    result = invoke("run", "--set", "log.level")

    assert result.exit_code == 2
    assert "not of the form section.key=value" in result.stderr


@pytest.mark.parametrize("code", [0, 1, 3], ids=str)
def test_run_ends_with_the_exit_code_of_the_server(app: RecordingApp, code: int) -> None:
    app.result = code

    result = invoke("run", *ALL_OFF, "--data-dir", "elsewhere")

    assert result.exit_code == code
    assert [settings.server.data_dir for settings in app.started] == [Path("elsewhere")]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StoreLocked("another server uses data"), 4, "another server uses data"),
        (OSError(98, "Address already in use"), 3, "an address to listen on is in use"),
    ],
)
def test_errors_of_the_server_become_a_sentence_and_an_exit_code(
    app: RecordingApp, error: Exception, code: int, message: str
) -> None:
    app.result = error

    result = invoke("run", *ALL_OFF)

    assert result.exit_code == code
    assert f"moleport-server: {message}" in result.stderr


def test_a_bug_is_not_hidden(app: RecordingApp) -> None:
    app.result = OSError(5, "Input/output error")

    assert isinstance(invoke("run", *ALL_OFF).exception, OSError)


def test_a_taken_port_is_told_with_listener_and_remedy(app: RecordingApp, taken_port: int) -> None:
    result = invoke("run", *ALL_OFF, *PLAIN, "--set", f"listen.api=127.0.0.1:{taken_port}")

    assert result.exit_code == 3
    assert result.stderr == (
        f"moleport-server: port {taken_port} for api is in use (127.0.0.1:{taken_port}); "
        "change it with --set listen.api=HOST:PORT\n"
    )
    assert app.started == []


def test_an_address_of_another_machine_is_told(app: RecordingApp) -> None:
    result = invoke("run", *ALL_OFF, "--set", "listen.api=192.0.2.1:4041")

    assert result.exit_code == 3
    assert "api cannot listen on 192.0.2.1:4041: Cannot assign requested address" in result.stderr


@pytest.fixture
def free_base() -> int:
    """Five free ports in a row; taken ports in between make another test of it."""
    for base in range(20_000, 32_000, 10):  # below the range of ephemeral ports
        with contextlib.ExitStack() as taken:
            try:
                for port in range(base, base + 5):
                    taken.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    pytest.fail("no free ports")


def test_dev_runs_with_nothing_configured_and_leaves_a_profile(
    app: RecordingApp, tmp_path: Path, free_base: int
) -> None:
    environ = {"MOLEPORT_CONFIG_DIR": str(tmp_path / "config")}
    arguments = ("--data-dir", str(tmp_path / "data"), "--port-base", str(free_base))

    result = invoke("dev", *arguments, environ=environ)

    assert result.exit_code == 0, result.output
    assert "moleport http 3000" in result.stdout
    assert (tmp_path / "config" / "profile.json").exists()
    assert app.started[0].server.data_dir == tmp_path / "data"


def test_dev_leaves_the_profile_alone_when_told_so(
    app: RecordingApp, tmp_path: Path, free_base: int
) -> None:
    environ = {"MOLEPORT_CONFIG_DIR": str(tmp_path / "config")}
    arguments = ("--data-dir", str(tmp_path), "--port-base", str(free_base), "--no-profile")

    result = invoke("dev", *arguments, environ=environ)

    assert result.exit_code == 0
    assert not (tmp_path / "config").exists()


def test_dev_takes_settings_over_its_own(app: RecordingApp, tmp_path: Path, free_base: int) -> None:
    arguments = ("--data-dir", str(tmp_path), "--port-base", str(free_base), "--no-profile")

    invoke("dev", *arguments, "--set", "server.domains=t.example", environ={})

    assert app.started[0].server.domains == ("t.example",)


def test_dev_tells_a_taken_port_and_writes_no_profile(
    app: RecordingApp, tmp_path: Path, taken_port: int
) -> None:
    environ = {"MOLEPORT_CONFIG_DIR": str(tmp_path / "config")}
    arguments = ("--data-dir", str(tmp_path), "--port-base", str(min(taken_port, 65_000)))

    result = invoke("dev", *arguments, environ=environ)

    assert result.exit_code == 3
    assert "for edge_http is in use" in result.stderr
    assert "--port-base" in result.stderr
    assert not (tmp_path / "config").exists()


def test_dev_needs_a_directory_that_can_be_written(app: RecordingApp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = invoke("dev", "--data-dir", str(tmp_path / "file" / "data"))

    assert result.exit_code == 4
    assert "Not a directory" in result.stderr
    assert app.started == []


def test_backup_of_an_unused_directory_is_refused(tmp_path: Path) -> None:
    result = invoke("backup", str(tmp_path / "b"), "--data-dir", str(tmp_path), environ={})

    assert result.exit_code == 4
    assert "there is no database" in result.stderr


def test_restore_of_a_missing_backup_is_refused(tmp_path: Path) -> None:
    result = invoke("restore", str(tmp_path / "b"), "--data-dir", str(tmp_path), environ={})

    assert result.exit_code == 4
    assert str(tmp_path / "b") in result.stderr


async def test_a_backup_can_be_restored(tmp_path: Path) -> None:
    from moleport_server.store.sqlite import SqliteStateStore

    store: Any = await SqliteStateStore.open(tmp_path / "state.db")
    await store.aclose()
    copy, data = str(tmp_path / "copy.db"), str(tmp_path)

    backup = invoke("backup", copy, "--data-dir", data, environ={})
    again = invoke("backup", copy, "--data-dir", data, environ={})
    restore = invoke("restore", copy, "--data-dir", data, environ={})

    assert backup.output == f"state written to {copy}\n"
    assert again.exit_code == 4
    assert restore.exit_code == 0, restore.output
    assert restore.output.startswith("state restored; what was there is now ")


def test_the_data_directory_of_a_backup_may_come_from_the_settings(tmp_path: Path) -> None:
    result = invoke("backup", str(tmp_path / "b"), *PLAIN, "--set", f"server.data_dir={tmp_path}")

    assert result.exit_code == 4
    assert f"there is no database in {tmp_path}" in result.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    assert invoke("fly").exit_code == click.UsageError.exit_code


def test_the_configuration_of_a_rustunnel_server_is_printed_as_settings(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[server]\ndomain = "example.com"\n')

    result = invoke("import-config", str(file))

    assert result.exit_code == 0
    assert 'domains = ["example.com"]' in result.output


@pytest.mark.parametrize("content", [b"[server", b"\xff"], ids=["no TOML", "no text"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "server.toml"
    file.write_bytes(content)

    assert invoke("import-config", str(file)).exit_code == main.EXIT_SETTINGS
