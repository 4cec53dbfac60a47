"""The command line of the server: `run`, `dev`, `check-config`, `import-config`, `backup`, `restore`.

Turns arguments into settings and errors into one sentence and an exit code; everything else is in
`app`. Commands import what they need, so that `--help` and mistakes answer at once.
"""

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from moleport_server.config.checks import endpoints
from moleport_server.config.environment import (
    environment,
    profile_directory,
    read_text,
    state_directory,
)
from moleport_server.config.load import Resolved, resolve
from moleport_server.config.settings import ServerSettings
from moleport_server.development import MAX_PORT_BASE
from moleport_server.errors import ConfigError, StoreError
from moleport_server.listening import AddressesRefused, BoundListeners

EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_ADDRESS = 3
EXIT_STORE = 4

_EPILOG = """\b
Exit codes:
  0  ended cleanly
  1  failed
  2  wrong settings or usage
  3  an address to listen on is in use or not allowed
  4  the data directory or a database was refused

Settings: docs/reference/settings.md; each is also a variable MOLEPORT__SECTION__KEY.
"""


def _parse_assignments(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    flags = {}
    for value in values:
        path, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not of the form section.key=value")
        flags[path.strip()] = text
    return flags


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--config", "config_file", type=click.Path(path_type=Path), help="TOML file to read."
        ),
        _set_option,
        click.option("--data-dir", help="The same as --set server.data_dir=DIR."),
        click.option("--log-level", help="The same as --set log.level=LEVEL."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_set_option = click.option(
    "--set",
    "flags",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    callback=_parse_assignments,
    help="Set one thing; may be repeated. Secrets belong in files: arguments are visible to all.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="moleport", prog_name="moleport-server")
def cli() -> None:
    """The tunnel server of moleport: the public side of services that nobody can reach."""


@cli.command(epilog=_EPILOG, short_help="Run the server until SIGTERM.")
@_settings_options
def run(**options: Any) -> None:
    """Run the server until SIGTERM; it then drains, and a second signal ends it at once."""
    with _exit_codes():
        settings = _resolve(**options).settings
        _serve(settings, "change it with --set {key}=HOST:PORT")


@cli.command(epilog=_EPILOG, short_help="Run a server on this machine with nothing configured.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where its state is kept. Default: a directory of this user.",
)
@click.option(
    "--port-base",
    type=click.IntRange(1, MAX_PORT_BASE),
    metavar="N",
    help="Move all ports: N edge-http, N+1 edge-https, N+2 control, N+3 api, N+4 metrics, "
    "N+100 to N+199 TCP tunnels.",
)
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use the token in this file. Default: a random one, kept in the data directory.",
)
@click.option("--no-profile", is_flag=True, help="Leave the profile of the CLI alone.")
@_set_option
def dev(
    *,
    data_dir: Path | None,
    port_base: int | None,
    admin_token_file: Path | None,
    no_profile: bool,
    flags: Mapping[str, str],
) -> None:
    """Run a server on this machine with nothing configured: for trying out and for development.

    Listens on loopback only, makes its own certificate authority and admin token, and writes the
    profile of the CLI, so that `moleport http 3000` works next.
    """
    from moleport_server import development

    environ = environment()
    data_dir = data_dir or state_directory()
    profile_dir = None if no_profile else profile_directory(environ)
    with _exit_codes():
        try:
            development.prepare_data_dir(data_dir)
        except OSError as error:
            _fail(EXIT_STORE, f"{data_dir}: {error.strerror or error}")
        settings = resolve(
            flags,
            environ,
            read_text,
            presets=development.presets(
                data_dir, port_base=port_base, admin_token_file=admin_token_file
            ),
        ).settings

        def banner() -> None:
            from moleport_server.announcement import announcement

            for line in announcement(settings, profile_dir=profile_dir):
                click.echo(line)

        _serve(settings, "move all ports with --port-base N", banner)


@cli.command(
    "check-config",
    epilog=_EPILOG,
    short_help="Print the settings in effect, and where each comes from.",
)
@_settings_options
def check_config(**options: Any) -> None:
    """Print the settings in effect, and where each comes from; secrets are masked.

    Takes the same options as `run`. If anything is wrong, all problems go to standard error.
    """
    from moleport_server.config.render import render_effective

    with _exit_codes():
        click.echo(render_effective(_resolve(**options)), nl=False)


@cli.command(epilog=_EPILOG, short_help="Copy tokens, leases and history into one file.")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the destination if it exists.")
@_settings_options
def backup(*, destination: Path, overwrite: bool, **options: Any) -> None:
    """Copy the state (tokens, leases, history) into one file, also while the server runs.

    Captured requests are not part of it. With --data-dir no other setting is read.
    """
    from moleport_server.store import backup as copies

    with _exit_codes():
        copies.backup(_data_dir(**options), destination, overwrite=overwrite)
        click.echo(f"state written to {destination}")


@cli.command(epilog=_EPILOG, short_help="Put a backup in the place of the state.")
@click.argument("source", type=click.Path(path_type=Path))
@_settings_options
def restore(*, source: Path, **options: Any) -> None:
    """Put a backup in the place of the state; the server must be stopped.

    The state that was there is kept beside it. With --data-dir no other setting is read.
    """
    from moleport_server.store import backup as copies

    with _exit_codes():
        kept = copies.restore(source, _data_dir(**options))
        click.echo("state restored" + (f"; what was there is now {kept}" if kept else ""))


@cli.command(
    "import-config",
    epilog=_EPILOG,
    short_help="Print the settings that do what a rustunnel server does.",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def import_config(*, file: Path) -> None:
    """Print the settings that do what the server.toml of a rustunnel server does.

    Whatever has no equivalent is named in comments. Secrets are not repeated.
    """
    from moleport_server.config.rustunnel import render_translation, translate

    with _exit_codes():
        try:
            text = read_text(file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{file}: cannot be read: {error}"]) from error
        click.echo(render_translation(translate(text)), nl=False)


def main() -> NoReturn:
    """Run the command line."""
    cli()
    sys.exit(0)


def _resolve(
    *,
    config_file: Path | None,
    flags: Mapping[str, str],
    data_dir: str | None,
    log_level: str | None,
) -> Resolved:
    shortcuts = {"server.data_dir": data_dir, "log.level": log_level}
    given = {path: text for path, text in shortcuts.items() if text is not None}
    return resolve({**flags, **given}, environment(), read_text, config_file=config_file)


def _data_dir(*, data_dir: str | None, **options: Any) -> Path:
    if data_dir is not None:
        return Path(data_dir)
    return _resolve(data_dir=None, **options).settings.server.data_dir


def _serve(
    settings: ServerSettings, remedy: str, banner: Callable[[], None] | None = None
) -> NoReturn:
    """Listen, then load everything else and run; `remedy` says what to do about a taken address."""
    try:
        bound = BoundListeners.bind(endpoints(settings.listen))
    except AddressesRefused as error:
        sentences = error.refused.items()
        _fail(
            EXIT_ADDRESS,
            *(f"{text}; {remedy.format(key=f'listen.{name}')}" for name, text in sentences),
        )
    leased = _listen_on_leased_ports(settings)
    from moleport_server import logs
    from moleport_server.app import server

    logs.configure(settings.log)
    sys.exit(server.run(settings, bound, leased, banner=banner))


def _listen_on_leased_ports(settings: ServerSettings) -> BoundListeners:
    """Let visitors of the TCP tunnels of the last run wait, too, for what starts now."""
    from moleport_server.store.directory import DataDirectory
    from moleport_server.store.leased_ports import leased_ports

    ports = leased_ports(DataDirectory(settings.server.data_dir).state_path)
    return BoundListeners.bind_free(settings.listen.tcp_endpoint(port) for port in ports)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors that people can do something about into sentences and exit codes."""
    try:
        yield
    except ConfigError as error:
        _fail(EXIT_SETTINGS, *error.problems)
    except StoreError as error:
        _fail(EXIT_STORE, str(error))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _fail(EXIT_ADDRESS, f"an address to listen on is in use: {error}")


def _fail(code: int, *sentences: str) -> NoReturn:
    for sentence in sentences:
        click.echo(f"moleport-server: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
