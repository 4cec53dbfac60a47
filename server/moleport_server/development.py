"""What `moleport-server dev` adds to the settings; what it tells is in `announcement`.

Everything stays on loopback and in one data directory: a local authority for certificates, a random
admin token readable by its owner, the databases. Read before the server listens, so it imports little.
"""

from pathlib import Path

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
        # Only the first start needs these, and they would keep visitors of all others waiting.
        import secrets  # noqa: PLC0415 - see above

        from moleport_server.config.profile import write_private  # noqa: PLC0415 - as above

        write_private(token_file, secrets.token_urlsafe(32) + "\n")
