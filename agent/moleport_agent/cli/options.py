"""Options that many commands share, and what they mean: `ConnectionFlags` and `OutputFlags`.

The decorators hand the command one object instead of five keywords, so that a new flag is one
change.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from moleport_agent.config import (
    Layer,
    ResolvedServer,
    config_directory,
    environment,
    environment_layers,
    profile_layers,
    resolve,
    secret_directory_layer,
)
from moleport_agent.printable import printable

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFlags:
    """Which server, which token, whom to trust: as far as flags say it."""

    server: str | None
    token_file: Path | None
    ca_file: Path | None
    insecure: bool
    secret_dir: Path | None

    def resolve(
        self, *, file_layer: Layer | None = None, needs_token: bool = True
    ) -> ResolvedServer:
        """Merge flags, environment, moleport.yaml and the profile.

        Raises:
            ConfigError: something is missing (a token only if it is needed) or unusable.
        """
        environ = environment()
        layers = [
            Layer(
                source="the flags",
                server=self.server,
                token_file=self.token_file,
                ca_file=self.ca_file,
                insecure=self.insecure or None,
            )
        ]
        if self.secret_dir is not None:
            layers.append(secret_directory_layer(self.secret_dir))
        layers += environment_layers(environ)
        if file_layer is not None:
            layers.append(file_layer)
        layers += profile_layers(config_directory(environ))
        return resolve(layers, needs_token=needs_token)

    def resolve_loudly(self, *, file_layer: Layer | None = None) -> ResolvedServer:
        """Merge like `resolve`, and say on standard error what is dangerous about the result."""
        resolved = self.resolve(file_layer=file_layer)
        warn(resolved.warnings)
        return resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFlags:
    """How a command speaks."""

    json: bool
    quiet: bool = False
    verbose: bool = False


def warn(sentences: tuple[str, ...]) -> None:
    """Write warnings to standard error; `--quiet` does not silence them."""
    for sentence in sentences:
        click.echo(f"warning: {printable(sentence)}", err=True)


def connection_options(command: _Command) -> Callable[..., Any]:
    """Add the options that find the server; the command gets `connection: ConnectionFlags`."""

    @click.option(
        "--server",
        metavar="URL",
        help="Base URL of the server's control listener, https://host:4040. [MOLEPORT_SERVER]",
    )
    @click.option(
        "--token-file",
        type=_FILE,
        help="File with the token; read again when it changes. [MOLEPORT_TOKEN_FILE]",
    )
    @click.option(
        "--ca-file",
        type=_FILE,
        help="PEM file of the CA that vouches for the server. [MOLEPORT_CA_FILE]",
    )
    @click.option(
        "--insecure",
        is_flag=True,
        help="Do not verify the server's certificate. Whoever is in between reads everything.",
    )
    @click.option(
        "--secret-dir",
        type=_DIRECTORY,
        help="Mounted TunnelToken Secret: files uri, token, ca.crt. [MOLEPORT_SECRET_DIR]",
    )
    @functools.wraps(command)
    def with_connection(
        *args: Any,
        server: str | None,
        token_file: Path | None,
        ca_file: Path | None,
        insecure: bool,
        secret_dir: Path | None,
        **rest: Any,
    ) -> Any:
        flags = ConnectionFlags(
            server=server,
            token_file=token_file,
            ca_file=ca_file,
            insecure=insecure,
            secret_dir=secret_dir,
        )
        return command(*args, connection=flags, **rest)

    return with_connection


def json_option(command: _Command) -> Callable[..., Any]:
    """Add `--json`; the command gets `output: OutputFlags`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @functools.wraps(command)
    def with_json(*args: Any, as_json: bool, **rest: Any) -> Any:
        return command(*args, output=OutputFlags(json=as_json), **rest)

    return with_json


def running_options(command: _Command) -> Callable[..., Any]:
    """Add the options of commands that run an agent: output and `connections`."""

    @click.option(
        "--connections",
        type=click.IntRange(1, 16),
        help="Connections to the server that share the load; 1 is enough for most.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
    @click.option("-q", "--quiet", is_flag=True, help="Print public URLs and problems only.")
    @click.option(
        "-v", "--verbose", is_flag=True, help="Log what happens; plain lines, no terminal view."
    )
    @functools.wraps(command)
    def with_output(*args: Any, as_json: bool, quiet: bool, verbose: bool, **rest: Any) -> Any:
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        flags = OutputFlags(json=as_json, quiet=quiet, verbose=verbose)
        return command(*args, output=flags, **rest)

    return with_output
