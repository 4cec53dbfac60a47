"""`moleport login`: remember a server and a token for this user."""

import sys
from pathlib import Path

import click

from moleport_agent.cli.options import OutputFlags, json_option, warn
from moleport_agent.cli.printing import print_json
from moleport_agent.config import (
    Layer,
    Profile,
    check_token,
    config_directory,
    environment,
    parse_server,
    resolve,
    write_profile,
)
from moleport_agent.errors import ConfigError
from moleport_agent.settings import Secret

_LONGEST_INPUT = 64 * 1024


@click.command(name="login")
@click.argument("server", required=False)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Remember this file instead of a token; it is read again when it changes.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the CA that vouches for the server; its place is remembered.",
)
@click.option("--insecure", is_flag=True, help="Never verify this server's certificate.")
@click.option("--no-verify", is_flag=True, help="Do not try the token at the server first.")
@json_option
def login(
    *,
    server: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    insecure: bool,
    no_verify: bool,
    output: OutputFlags,
) -> None:
    """Remember SERVER and a token in the profile of this user.

    SERVER is the base URL of the control listener, https://host:4040; default: MOLEPORT_SERVER. The
    token is asked for, or read from standard input; it is no argument, because those are visible to
    every user of the machine.
    """
    from moleport_agent.rest import ServerClient

    environ = environment()
    url = parse_server(server or environ.get("MOLEPORT_SERVER") or _ask_for_server())
    token = None if token_file is not None else check_token(_ask_for_token())
    resolved = resolve(
        [
            Layer(
                source="login",
                server=url,
                token=token,
                token_file=_absolute(token_file),
                ca_file=_absolute(ca_file),
                insecure=insecure or None,
            )
        ]
    )
    warn(resolved.warnings)
    if not no_verify:
        with ServerClient(resolved.settings) as client:
            client.tunnels()
    path = write_profile(
        config_directory(environ),
        Profile(
            server=url,
            token=None if token is None else str(token),
            token_file=_text(_absolute(token_file)),
            ca_file=_text(_absolute(ca_file)),
            insecure=insecure,
        ),
    )
    if output.json:
        print_json({"server": url, "profile": str(path), "verified": not no_verify})
    else:
        click.echo(f"{url} remembered in {path}; next: moleport http 3000")


def _ask_for_server() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Server", err=True))
    # What is piped in is the token.
    raise ConfigError(["no server: write `moleport login https://host:4040`"])


def _ask_for_token() -> Secret:
    if sys.stdin.isatty():
        return Secret(click.prompt("Token", hide_input=True, err=True))
    return Secret(sys.stdin.read(_LONGEST_INPUT))


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
