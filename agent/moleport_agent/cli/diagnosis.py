"""`moleport doctor`: say what is wrong between here and the server."""

import click

from moleport_agent.cli.exits import Exit
from moleport_agent.cli.options import (
    ConnectionFlags,
    OutputFlags,
    connection_options,
    json_option,
)
from moleport_agent.cli.printing import print_json
from moleport_agent.printable import printable

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


@click.command(name="doctor", short_help="Find out what is wrong between here and the server.")
@json_option
@connection_options
def doctor(*, connection: ConnectionFlags, output: OutputFlags) -> None:
    """Check everything between here and the server, and say what to do.

    Settings, proxy, name resolution, TCP, TLS, the API, the clock, the token, WebSocket upgrades,
    latency, and whether something in between holds streams back. Exit code 0 only if all is well.
    """
    from moleport_agent.doctor.examination import examine, is_healthy

    findings = []
    for finding in examine(connection.resolve):
        findings.append(finding)
        if output.json:
            continue
        outcome = click.style(f"{finding.outcome:<8}", fg=_COLOURS[finding.outcome])
        click.echo(f"{outcome} {finding.check:<16} {printable(finding.sentence)}")
        if finding.remedy is not None:
            click.echo(f"{'':<25} -> {printable(finding.remedy)}")
    healthy = is_healthy(findings)
    if output.json:
        print_json({"healthy": healthy, "checks": findings})
    click.get_current_context().exit(Exit.OK if healthy else Exit.FAILED)
