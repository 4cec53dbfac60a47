"""`moleport http`, `tcp`, `expose`, `pull` and `start`: run an agent until a signal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from moleport_agent.cli.options import (
    ConnectionFlags,
    OutputFlags,
    connection_options,
    running_options,
)
from moleport_agent.config import environment, memory_file
from moleport_agent.errors import ConfigError
from moleport_agent.settings import AgentSettings, ContainerPort, ServerSettings, TunnelSettings
from moleport_agent.tunnels import Problem, TunnelEntry, make_tunnel

_Command = TypeVar("_Command", bound=Callable[..., Any])
_TARGET_HELP = (
    "TARGET is a port (3000), host:port, http://host:port, https://host:port or unix:/path."
)


def _upstream_options(command: _Command) -> _Command:
    for option in (
        click.option(
            "--upstream-server-name",
            metavar="NAME",
            help="Name to ask an https:// target for, and to verify; default: its host.",
        ),
        click.option(
            "--upstream-ca", metavar="FILE", help="PEM file of the CA of an https:// target."
        ),
        click.option(
            "--upstream-insecure",
            is_flag=True,
            help="Do not verify the certificate of an https:// target.",
        ),
        click.option(
            "--allow-cidr",
            multiple=True,
            metavar="CIDR",
            help="Let only visitors of this network in, such as 10.0.0.0/8; repeatable.",
        ),
    ):
        command = option(command)
    return command


@click.command(
    name="http",
    help=f"Expose an HTTP service.\n\n{_TARGET_HELP}",
    epilog="Example: moleport http 3000 --name shop",
)
@click.argument("target")
@click.option("--name", help="Wanted name: one label under the server's domain.")
@click.option("--hostname", help="Wanted full host name; your token has to allow it.")
@click.option(
    "--host-header",
    metavar="preserve|rewrite|VALUE",
    help="Host header that the service sees: the public name (preserve, default), "
    "the target's own (rewrite), or a fixed one.",
)
@click.option(
    "--basic-auth",
    multiple=True,
    metavar="USER:PASSWORD",
    help="Ask visitors for this user; repeatable. Arguments are visible to every user of this "
    "machine (ps): prefer --basic-auth-file.",
)
@click.option(
    "--basic-auth-file", metavar="FILE", help="File with one user:password per line; # comments."
)
@_upstream_options
@running_options
@connection_options
def expose_http(
    *,
    target: str,
    connection: ConnectionFlags,
    output: OutputFlags,
    connections: int | None,
    name: str | None,
    basic_auth: tuple[str, ...],
    allow_cidr: tuple[str, ...],
    **rest: Any,
) -> None:
    """Run one HTTP tunnel."""
    entry = TunnelEntry(
        protocol="http",
        target=target,
        name=name,
        basic_auth=list(basic_auth) or None,
        allow_cidr=list(allow_cidr) or None,
        **rest,
    )
    tunnel = _tunnel(name or "http", entry)
    _run(connection.resolve_loudly().settings, (tunnel,), connections, output)


@click.command(
    name="tcp",
    help=f"Expose a TCP service.\n\n{_TARGET_HELP}",
    epilog="Example: moleport tcp localhost:5432 --port 20005",
)
@click.argument("target")
@click.option("--port", type=int, help="Wanted public port; default: one that is free.")
@click.option(
    "--proxy-protocol",
    type=click.Choice(["v1", "v2"]),
    help="Tell the service the visitor's address by the PROXY protocol.",
)
@_upstream_options
@running_options
@connection_options
def expose_tcp(
    *,
    target: str,
    connection: ConnectionFlags,
    output: OutputFlags,
    connections: int | None,
    allow_cidr: tuple[str, ...],
    **rest: Any,
) -> None:
    """Run one TCP tunnel."""
    entry = TunnelEntry(protocol="tcp", target=target, allow_cidr=list(allow_cidr) or None, **rest)
    _run(connection.resolve_loudly().settings, (_tunnel("tcp", entry),), connections, output)


@click.command(
    name="expose",
    short_help="Give an HTTP service a port inside of the cluster.",
    help="Give an HTTP service a port inside of the cluster, and a public name if the server makes "
    f"them.\n\n{_TARGET_HELP}",
    epilog="Example: moleport expose 3000 --port 8080",
)
@click.argument("target")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Wanted container port; default: one that is free.",
)
@click.option("--name", help="Wanted public name: one label under the server's domain.")
@click.option(
    "--takeover", is_flag=True, help="Take the port from another agent of this token, once."
)
@_upstream_options
@running_options
@connection_options
def expose_port(
    *,
    target: str,
    connection: ConnectionFlags,
    output: OutputFlags,
    connections: int | None,
    port: int | None,
    takeover: bool,
    allow_cidr: tuple[str, ...],
    **rest: Any,
) -> None:
    """Run one EXPOSE."""
    entry = TunnelEntry(protocol="http", target=target, allow_cidr=list(allow_cidr) or None, **rest)
    container = ContainerPort(mode="expose", port=port or 0, takes_over=takeover)
    tunnel = replace(_tunnel("expose", entry), container=container)
    _run(connection.resolve_loudly().settings, (tunnel,), connections, output)


@click.command(
    name="pull",
    short_help="Let containers of the server's pod reach a TCP service.",
    help="Let containers of the server's pod reach a TCP service, by a port on their loopback.\n\n"
    f"{_TARGET_HELP}",
    epilog="Example: moleport pull localhost:5432 --port 5432",
)
@click.argument("target")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Wanted port in the pod; default: one that is free.",
)
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1", "::1"]),
    default="127.0.0.1",
    show_default=True,
    help="Loopback address of the pod to listen on.",
)
@_upstream_options
@running_options
@connection_options
def pull(
    *,
    target: str,
    connection: ConnectionFlags,
    output: OutputFlags,
    connections: int | None,
    port: int | None,
    host: str,
    allow_cidr: tuple[str, ...],
    **rest: Any,
) -> None:
    """Run one PULL."""
    entry = TunnelEntry(protocol="tcp", target=target, allow_cidr=list(allow_cidr) or None, **rest)
    container = ContainerPort(mode="pull", port=port or 0, host=host)
    tunnel = replace(_tunnel("pull", entry), container=container)
    _run(connection.resolve_loudly().settings, (tunnel,), connections, output)


@click.command(name="start")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("moleport.yaml"),
    show_default=True,
    help="File with the tunnels.",
)
@running_options
@connection_options
def start(
    *,
    names: tuple[str, ...],
    path: Path,
    connection: ConnectionFlags,
    output: OutputFlags,
    connections: int | None,
) -> None:
    """Run the tunnels of moleport.yaml: all of them, or those named."""
    from moleport_agent.config import Layer
    from moleport_agent.tunnel_file import read_tunnel_file

    file = read_tunnel_file(path)
    known = {tunnel.name: tunnel for tunnel in file.tunnels}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            [f"{path} has no tunnel {name}; it has {', '.join(known)}" for name in unknown]
        )
    layer = Layer(
        source=str(path),
        server=file.server,
        token_file=file.token_file,
        ca_file=file.ca_file,
        insecure=file.insecure,
    )
    chosen = tuple(known[name] for name in dict.fromkeys(names)) or file.tunnels
    server = connection.resolve_loudly(file_layer=layer).settings
    _run(server, chosen, connections or file.connections, output)


def _tunnel(name: str, entry: TunnelEntry) -> TunnelSettings:
    problems: list[Problem] = []
    tunnel = make_tunnel(name, entry, Path(), problems)
    if tunnel is None:
        raise ConfigError(
            [
                sentence if field == "target" else f"--{field.replace('_', '-')} {sentence}"
                for field, sentence in problems
            ]
        )
    return tunnel


def _run(
    server: ServerSettings,
    tunnels: tuple[TunnelSettings, ...],
    connections: int | None,
    output: OutputFlags,
) -> None:
    from moleport_agent.agent import run_agent
    from moleport_agent.cli.signals import run_until_signalled
    from moleport_agent.cli.views import open_view

    settings = AgentSettings(
        server=server,
        tunnels=tunnels,
        connections=connections or 1,
        report_requests=not output.quiet,
        memory_file=memory_file(environment()),
    )
    with open_view(settings, output) as (observe, restore):
        code = run_until_signalled(lambda stop: run_agent(settings, observe, stop=stop), restore)
    click.get_current_context().exit(code)
