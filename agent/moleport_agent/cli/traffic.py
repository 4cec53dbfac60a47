"""`moleport requests` and `replay`: what visitors did, live and again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from moleport_agent.answers import Capture, ServerEvent
from moleport_agent.cli.options import (
    ConnectionFlags,
    OutputFlags,
    connection_options,
    json_option,
)
from moleport_agent.cli.printing import print_json, print_json_line
from moleport_agent.printable import printable

if TYPE_CHECKING:
    from moleport_agent.live_events import EventStream

_REQUEST_KEYS = (
    "tunnel_id",
    "method",
    "path",
    "status",
    "duration_ms",
    "request_bytes",
    "response_bytes",
)


@click.command(name="requests", short_help="Show requests of your tunnels, and follow them live.")
@click.argument("tunnel", required=False)
@click.option(
    "-f",
    "--follow/--no-follow",
    default=True,
    help="Go on with live requests until Ctrl-C, which is the default.",
)
@click.option(
    "--limit",
    type=click.IntRange(0, 500),
    default=20,
    show_default=True,
    help="How many past requests of each tunnel to show first.",
)
@json_option
@connection_options
def requests(
    *,
    tunnel: str | None,
    follow: bool,
    limit: int,
    connection: ConnectionFlags,
    output: OutputFlags,
) -> None:
    """Show the requests of a tunnel, or of all of yours, and follow them live.

    TUNNEL is an id, a public URL, a host name or its first label, or a port. With --json there is
    one object per line.
    """
    from moleport_agent.live_events import EventStream
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        rows = client.tunnels() if tunnel is None else [client.find_tunnel(tunnel)]
        stream: EventStream | None = None
        if follow:
            # Opened before the past is read, so that no request falls between the two.
            chosen = None if tunnel is None else rows[0].tunnel_id
            stream = client.events(tunnel_id=chosen, on_drop=_tell_drop)
        past = [capture for row in rows for capture in client.requests(row.tunnel_id, limit=limit)]
        labels = {row.tunnel_id: row.label for row in rows}
        for capture in sorted(past, key=lambda capture: capture.captured_at):
            _show(_of_capture(capture, labels.get(capture.tunnel_id, "")), output)
        if stream is not None:
            _follow(stream, {capture.id for capture in past}, output)


@click.command(name="replay")
@click.argument("tunnel")
@click.argument("request")
@click.option("--send", is_flag=True, help="Really send it to the local service again.")
@json_option
@connection_options
def replay(
    *,
    tunnel: str,
    request: str,
    send: bool,
    connection: ConnectionFlags,
    output: OutputFlags,
) -> None:
    """Show a captured request, or send it again.

    TUNNEL is as in `requests`; REQUEST is the id that `moleport requests` prints.
    """
    from moleport_agent.rest import ServerClient

    with ServerClient(connection.resolve_loudly().settings) as client:
        row = client.find_tunnel(tunnel)
        capture = client.replay(row.tunnel_id, request, send=send)
    if output.json:
        print_json(capture)
        return
    _show(_of_capture(capture, row.label), output)
    for title, body in (("request", capture.request_body), ("response", capture.response_body)):
        if body:
            click.echo(f"{title} body:")
            for line in body.splitlines():
                click.echo(f"  {printable(line)}")


def _follow(stream: "EventStream", seen: set[str], output: OutputFlags) -> None:
    try:
        with stream:
            for event in stream:
                if event.kind == "events.lost":
                    click.echo("(some requests were not shown: too many)", err=True)
                    continue
                if event.kind != "request.finished" or event.fields.get("request_id") in seen:
                    continue
                _show(_of_event(event), output)
    except KeyboardInterrupt:
        # Ctrl-C is how one stops to follow; it is no failure.
        return


def _of_capture(capture: Capture, label: str) -> dict[str, Any]:
    shown = {key: getattr(capture, key) for key in _REQUEST_KEYS}
    return {"request_id": capture.id, "at": capture.captured_at, "label": label, **shown}


def _of_event(event: ServerEvent) -> dict[str, Any]:
    shown = {key: event.fields.get(key) for key in ("request_id", "label", *_REQUEST_KEYS)}
    shown["at"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return shown


def _show(request: dict[str, Any], output: OutputFlags) -> None:
    if output.json:
        print_json_line(request)
        return
    words = (
        str(request["at"])[:19].replace("T", " "),
        str(request["label"] or ""),
        str(request["method"] or "tcp"),
        str(request["path"] or ""),
        str(request["status"] or ""),
        f"{float(request['duration_ms'] or 0):.0f} ms",
        str(request["request_id"] or ""),
    )
    click.echo("  ".join(printable(word) for word in words if word))


def _tell_drop(reason: str, seconds: float) -> None:
    click.echo(f"{printable(reason)}; again in {seconds:.1f} s", err=True)
