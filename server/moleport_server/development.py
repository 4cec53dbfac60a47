"""What `moleport-server dev` adds to the settings, and what it tells when the server is ready.

Everything stays on loopback and in one data directory: a local authority for certificates, a random
admin token readable by its owner, the databases. The profile for the CLI is written only when all
listeners are ready, so that it never points to a server that did not start.
"""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from moleport_server.config.profile import FILE_NAME, ProfileOutcome, write_private, write_profile
from moleport_server.config.settings import ServerSettings
from moleport_server.edge.certificates import CA_FILE

DEFAULT_PORTS = {"edge_http": 8080, "edge_https": 8443, "control": 4040, "api": 4041}
METRICS_PORT = 9090
TCP_PORTS = (20_000, 20_099)
TCP_OFFSET = 100
"""Where the TCP range begins behind `--port-base`."""

MAX_PORT_BASE = 65_535 - TCP_OFFSET - 99

_LOOPBACK = "127.0.0.1"


def presets(
    data_dir: Path, *, port_base: int | None = None, admin_token_file: Path | None = None
) -> dict[str, object]:
    """Return the settings of a development server, by path.

    Args:
        data_dir: keeps everything between two starts.
        port_base: moves all ports; None: the default ones.
        admin_token_file: an existing token; default: one in the data directory.
    """
    ports = {**DEFAULT_PORTS, "metrics": METRICS_PORT}
    first, last = TCP_PORTS
    if port_base is not None:
        ports = {name: port_base + offset for offset, name in enumerate(ports)}
        first, last = port_base + TCP_OFFSET, port_base + TCP_OFFSET + 99
    return {
        "server.data_dir": data_dir,
        "server.drain_delay_seconds": 0.0,
        "listen.tcp_host": _LOOPBACK,
        "listen.tcp_ports": f"{first}-{last}",
        "hoody.expose": True,
        "hoody.expose_host": _LOOPBACK,
        "hoody.pull": True,
        # Browsers and curl do not know the local authority, and http on localhost is private.
        "public.scheme": "http",
        "public.control_url": f"https://localhost:{ports['control']}",
        "tls.authority_dir": data_dir / "tls",
        "auth.admin_token_file": admin_token_file or data_dir / "admin-token",
        **{f"listen.{name}": f"{_LOOPBACK}:{port}" for name, port in ports.items()},
    }


def prepare_data_dir(data_dir: Path) -> None:
    """Create the data directory and the admin token in it, unless they exist.

    Raises:
        OSError: they cannot be written.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    token_file = data_dir / "admin-token"
    if not token_file.exists():
        write_private(token_file, secrets.token_urlsafe(32) + "\n")


def announcement(settings: ServerSettings, *, profile_dir: Path | None) -> Iterator[str]:
    """Write the profile and yield the lines for the terminal; call it when the server is ready.

    Args:
        settings: the effective ones.
        profile_dir: configuration directory of the CLI; None: leave the profile alone.
    """
    listen, auth = settings.listen, settings.auth
    server = settings.public.control_url or ""
    yield "moleport-server dev is ready (Ctrl-C ends it)"
    yield ""
    domain = settings.server.domains[0]
    urls = [
        f"{scheme}://<name>.{domain}:{endpoint.port}"
        for scheme, endpoint in (("http", listen.edge_http), ("https", listen.edge_https))
        if endpoint is not None
    ]
    facts: Mapping[str, object] = {
        "tunnels": "  ".join(urls),
        "tcp tunnels": f"ports {listen.tcp_ports} on {listen.tcp_host}",
        "agents": server,
        "api": f"http://{listen.api}" if listen.api else "off",
        "metrics": f"http://{listen.metrics}/metrics" if listen.metrics else "off",
        "data": settings.server.data_dir,
        "admin token": auth.admin_token_file or "from the environment",
        "authority": _ca_file(settings) or "off",
    }
    yield from (f"  {name:<12} {fact}" for name, fact in facts.items())
    yield ""
    yield from _next_step(settings, server, profile_dir)


def _next_step(settings: ServerSettings, server: str, profile_dir: Path | None) -> Iterator[str]:
    token_file, ca_file = settings.auth.admin_token_file, _ca_file(settings)
    reason = "no profile was written"
    if profile_dir is not None and token_file is not None and ca_file is not None:
        path = profile_dir / FILE_NAME
        try:
            outcome = write_profile(
                profile_dir, server=server, token_file=token_file, ca_file=ca_file
            )
        except OSError as error:
            reason = f"the profile {path} cannot be written ({error.strerror or error})"
        else:
            if outcome is ProfileOutcome.WRITTEN:
                yield f"  profile      {path}"
                yield "Next, in another terminal:  moleport http 3000"
                return
            reason = f"the profile {path} was written by somebody else and stays as it is"
    yield f"{reason[:1].upper()}{reason[1:]}. Next, in another terminal:"
    yield f"  export MOLEPORT_SERVER={server}"
    if token_file is not None:
        yield f"  export MOLEPORT_TOKEN_FILE={token_file.resolve()}"
    if ca_file is not None:
        yield f"  export MOLEPORT_CA_FILE={ca_file.resolve()}"
    yield "  moleport http 3000"


def _ca_file(settings: ServerSettings) -> Path | None:
    directory = settings.tls.authority_dir
    return None if directory is None else directory / CA_FILE
