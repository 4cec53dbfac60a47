"""`moleport token`: create, list and delete tokens; for the admin of a server."""

import click

from moleport_agent.answers import TokenRow
from moleport_agent.cli.options import (
    ConnectionFlags,
    OutputFlags,
    connection_options,
    json_option,
)
from moleport_agent.cli.printing import print_json, print_table
from moleport_agent.errors import ConfigError, NotFound


@click.group(name="token")
def token() -> None:
    """Create, list and delete tokens (admin)."""


@token.command(name="create")
@click.argument("label")
@click.option(
    "--scope",
    help="Comma separated patterns of the names it may use, such as shop-*,api; default: any.",
)
@json_option
@connection_options
def create(
    *, label: str, scope: str | None, connection: ConnectionFlags, output: OutputFlags
) -> None:
    """Create a token and print its secret, this once.

    The secret is alone on standard output, so that it can go straight into a file.
    """
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        created = client.create_token(label, scope=scope)
    if output.json:
        print_json(created)
        return
    click.echo(f"token {created.id} created; its secret is shown only now:", err=True)
    click.echo(created.token)


@token.command(name="list")
@json_option
@connection_options
def list_tokens(*, connection: ConnectionFlags, output: OutputFlags) -> None:
    """List all tokens, without their secrets."""
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        rows = client.tokens()
    if output.json:
        print_json(rows)
        return
    print_table(
        ("LABEL", "SCOPE", "CREATED", "LAST USED", "TUNNELS", "ID"),
        [
            (
                row.label,
                "any" if row.scope is None else row.scope,
                row.created_at,
                row.last_used_at or "never",
                str(row.tunnel_count),
                row.id,
            )
            for row in rows
        ],
        empty="no tokens; `moleport token create LABEL` makes one",
    )


@token.command(name="delete")
@click.argument("which", metavar="ID|LABEL")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@connection_options
def delete(*, which: str, yes: bool, connection: ConnectionFlags, output: OutputFlags) -> None:
    """Delete a token; its agents are disconnected at once."""
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        token_id = _find(client.tokens(), which)
        if not yes:
            click.confirm(
                f"Delete token {token_id} and disconnect its agents?", abort=True, err=True
            )
        client.delete_token(token_id)
    if output.json:
        print_json({"id": token_id, "deleted": True})
    else:
        click.echo(f"token {token_id} deleted")


def _find(rows: list[TokenRow], which: str) -> str:
    if any(row.id == which for row in rows):
        return which
    named = [row.id for row in rows if row.label == which]
    if len(named) > 1:
        raise ConfigError([f"{which!r} labels {len(named)} tokens; write the id of one"])
    if not named:
        raise NotFound(404, f"no token {which!r}; `moleport token list` shows them")
    return named[0]
