"""What `moleport-server dev` tells when it is ready: where everything is, and the next command.

The profile for the CLI is written only then, so that it never points to a server that did not start.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from moleport_server.config.profile import FILE_NAME, ProfileOutcome, write_profile
from moleport_server.config.settings import ServerSettings


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
        "authority": settings.tls.ca_file or "off",
    }
    yield from (f"  {name:<12} {fact}" for name, fact in facts.items())
    yield ""
    yield from _next_step(settings, server, profile_dir)


def _next_step(settings: ServerSettings, server: str, profile_dir: Path | None) -> Iterator[str]:
    token_file, ca_file = settings.auth.admin_token_file, settings.tls.ca_file
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
