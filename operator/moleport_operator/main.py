"""The command `moleport-operator`: run, drain, let-go, crds."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

CRDS = ("tunneltokens.yaml", "tunnelpolicies.yaml", "clustertunnelpolicies.yaml")
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: starting again changes nothing."""


@click.group(context_settings={"auto_envvar_prefix": "MOLEPORT_OPERATOR"})
@click.version_option(package_name="moleport")
def main() -> None:
    """Turn TunnelTokens and TunnelPolicies into tokens and policies of a tunnel server.

    Every option can also be set in the environment: MOLEPORT_OPERATOR_RUN_SERVER_URL and so on.
    """


_file = click.Path(dir_okay=False, path_type=Path)


@main.command()
@click.option("--server-url", required=True, help="REST API of the tunnel server, without /api.")
@click.option(
    "--server-token-file", required=True, type=_file, help="Its admin token; re-read on change."
)
@click.option("--server-ca-file", type=_file, help="CA of its certificate, PEM.")
@click.option("--agent-url", help="What Secrets name as the server.  [default: asks the server]")
@click.option("--agent-ca-file", type=_file, help="CA that Secrets carry for agents, PEM.")
@click.option("--owner-id", help="Marks our objects at the server.  [default: uid of kube-system]")
@click.option("--namespace", "namespaces", multiple=True, help="Watch only this one; repeatable.")
@click.option(
    "--resync", default=600.0, show_default=True, help="Look at everything this often, in seconds."
)
@click.option(
    "--usage-interval", default=60.0, show_default=True, help="Fetch usage this often, in seconds."
)
@click.option("--workers", default=16, show_default=True, help="Rounds at the same time.")
@click.option("--health-host", default="0.0.0.0", show_default=True)  # noqa: S104 - probes come from outside
@click.option("--health-port", default=9090, show_default=True, help="/metrics, /livez, /readyz.")
@click.option(
    "--object-metrics",
    default=1000,
    show_default=True,
    help="Up to so many tokens each has its own series; above, those that need attention.",
)
@click.option("--lease", help="NAMESPACE/NAME of a Lease: of several operators one works.")
@click.option("--identity", default=socket.gethostname, help="Who we are in the Lease.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True
)
def run(**options: Any) -> None:
    """Run until a signal ends it."""
    from moleport_operator import app, logs
    from moleport_operator.errors import OperatorError
    from moleport_operator.settings import OperatorSettings, ServerAccess

    settings = OperatorSettings(
        server=ServerAccess(
            url=options["server_url"],
            token_file=options["server_token_file"],
            ca_file=options["server_ca_file"],
        ),
        agent_url=options["agent_url"],
        agent_ca_file=options["agent_ca_file"],
        owner_id=options["owner_id"],
        namespaces=options["namespaces"],
        resync_seconds=options["resync"],
        usage_seconds=options["usage_interval"],
        workers=options["workers"],
        health_host=options["health_host"],
        health_port=options["health_port"],
        object_metrics=options["object_metrics"],
        lease=options["lease"],
        identity=options["identity"],
        log_level=options["log_level"],
        log_format=options["log_format"],
    )
    logs.configure(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(app.run(settings))
    except OperatorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it exists: most of the operator's time are small HTTP calls."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@main.command(short_help="Delete all TunnelTokens and policies before an uninstall.")
@click.option("--namespace", "namespaces", multiple=True, help="Only this one; repeatable.")
@click.option(
    "--timeout", default=120.0, show_default=True, help="Seconds to wait for the operator."
)
@click.option("--force", is_flag=True, help="Then let go of what is left, without revoking it.")
def drain(namespaces: tuple[str, ...], timeout: float, force: bool) -> None:  # noqa: FBT001 - click passes it
    """Delete all TunnelTokens and policies before an uninstall, and wait until they are gone."""
    from moleport_operator import drain as draining
    from moleport_operator.errors import OperatorError

    try:
        left = asyncio.run(
            draining.drain(namespaces, seconds=timeout, is_forced=force, say=click.echo)
        )
    except OperatorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)
    if left:
        click.echo(f"{left} resources are left; --force lets them go without revoking", err=True)
        sys.exit(1)


@main.command("let-go", short_help="Keep all TunnelTokens and policies after an uninstall.")
@click.option("--namespace", "namespaces", multiple=True, help="Only this one; repeatable.")
def let_go(namespaces: tuple[str, ...]) -> None:
    """Keep all TunnelTokens and policies after an uninstall: take our finalizer off them.

    Whoever deletes one then waits for nobody; nothing is revoked at the server. Run it after the
    operator ended. An operator that comes back adopts what it finds.
    """
    from moleport_operator import drain as draining
    from moleport_operator.errors import OperatorError

    try:
        left = asyncio.run(draining.let_go(namespaces, say=click.echo))
    except OperatorError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)
    if left:
        click.echo(f"{left} resources still wait for an operator: does one run?", err=True)
        sys.exit(1)


@main.command()
def crds() -> None:
    """Print the definitions of the resources, for kubectl apply -f -."""
    folder = files("moleport_operator") / "crds"
    click.echo("---\n".join((folder / name).read_text(encoding="utf-8") for name in CRDS), nl=False)
