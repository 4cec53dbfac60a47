"""The command `moleport`: its sub-commands, its exit codes, and how errors are said."""

import contextlib
import os
import sys
from typing import Any

import click

from moleport_agent.cli.completion import completion
from moleport_agent.cli.diagnosis import doctor
from moleport_agent.cli.exits import MEANINGS, Exit, exit_code
from moleport_agent.cli.expose import expose_http, expose_port, expose_tcp, pull, start
from moleport_agent.cli.login import login
from moleport_agent.cli.overview import list_tunnels, status
from moleport_agent.cli.tokens import token
from moleport_agent.cli.traffic import replay, requests
from moleport_agent.errors import ClientError
from moleport_agent.printable import printable

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {code.value:<4} {meaning}" for code, meaning in MEANINGS.items()
)


class MoleportGroup(click.Group):
    """Says our errors in sentences and ends with their exit code; no traceback reaches a user."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was chosen."""
        try:
            return super().invoke(ctx)
        except ClientError as error:
            for line in str(error).splitlines():
                click.echo(f"moleport: {printable(line)}", err=True)
            ctx.exit(exit_code(error))


@click.group(
    cls=MoleportGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="moleport", prog_name="moleport")
def moleport() -> None:
    """Give a service that nobody can reach a public address.

    The server and the token come from flags, else from the environment (MOLEPORT_SERVER,
    MOLEPORT_TOKEN_FILE, MOLEPORT_TOKEN, MOLEPORT_CA_FILE, MOLEPORT_SECRET_DIR), else from
    moleport.yaml, else from the profile that `moleport login` wrote.
    """


for _command in (
    expose_http,
    expose_tcp,
    expose_port,
    pull,
    start,
    login,
    list_tunnels,
    requests,
    replay,
    token,
    status,
    doctor,
    completion,
):
    moleport.add_command(_command)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A host name or path in another script must not end the agent on an ASCII terminal.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a stand-in has none
    try:
        moleport.main(prog_name="moleport", standalone_mode=True)
    finally:
        _flush_or_forget()


def _flush_or_forget() -> None:
    """Write what is left; when nobody reads it any more, keep the interpreter quiet about it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
