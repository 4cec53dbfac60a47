"""`moleport list` and `status`: what is there now."""

import click

from moleport_agent.cli.options import (
    ConnectionFlags,
    OutputFlags,
    connection_options,
    json_option,
)
from moleport_agent.cli.printing import print_json, print_table
from moleport_agent.errors import NotAuthorised, Rejected
from moleport_agent.printable import printable


@click.command(name="list")
@json_option
@connection_options
def list_tunnels(*, connection: ConnectionFlags, output: OutputFlags) -> None:
    """List the tunnels that your token may see."""
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        rows = client.tunnels()
    if output.json:
        print_json(rows)
        return
    print_table(
        ("PUBLIC URL", "PROTOCOL", "SINCE", "REQUESTS", "AGENT", "ID"),
        [
            (
                row.public_url,
                row.protocol,
                row.connected_since,
                str(row.request_count),
                row.client_addr,
                row.tunnel_id,
            )
            for row in rows
        ],
        empty="no tunnels; `moleport http 3000` opens one",
    )


@click.command(name="status")
@json_option
@connection_options
def status(*, connection: ConnectionFlags, output: OutputFlags) -> None:
    """Show whether the server is healthy and accepts your token."""
    from moleport_agent.rest import ServerClient

    resolved = connection.resolve_loudly()
    url = resolved.settings.url
    version, accepted = "", True
    with ServerClient(resolved.settings) as client:
        health = client.status()
        try:
            version = client.server().version
        except NotAuthorised:
            accepted = False
        except Rejected:
            # A server of the same API without this extension.
            accepted = client.is_token_accepted()
    if output.json:
        print_json(
            {
                "server": url,
                "ok": health.ok,
                "version": version,
                "active_sessions": health.active_sessions,
                "active_tunnels": health.active_tunnels,
                "token_accepted": accepted,
            }
        )
    else:
        click.echo(f"server    {url} (from {resolved.server_source})")
        click.echo(f"state     {'healthy' if health.ok else 'not healthy'}")
        if version:
            click.echo(f"version   {printable(version)}")
        click.echo(f"sessions  {health.active_sessions}")
        click.echo(f"tunnels   {health.active_tunnels}")
        verdict = "accepted" if accepted else "NOT accepted"
        click.echo(f"token     {verdict} (from {resolved.token_source})")
    if not accepted:
        raise NotAuthorised(401, "the server does not accept the token; run `moleport login`")
