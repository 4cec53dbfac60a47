"""The script of `helm test`, run against a server on this machine."""

import sys
from pathlib import Path

from helpers.processes import Running, command
from helpers.site import Site

SCRIPT = Path(__file__).parents[3] / "charts" / "moleport" / "files" / "helm_test.py"


async def helm_test(site: Site, edge: str, **environ: str) -> Running:
    running = await Running.start(
        "helm test",
        [sys.executable, str(SCRIPT)],
        {
            **site.environ,
            "PATH": f"{Path(command('moleport')).parent}:/usr/bin:/bin",
            "MOLEPORT_SERVER": f"https://localhost:{site.control_port}",
            "MOLEPORT_CA_FILE": str(site.ca_file),
            "ADMIN_TOKEN_FILE": str(site.data_dir / "admin-token"),
            "EDGE": edge,
            "DOMAIN": "localhost",
            **environ,
        },
    )
    site.running.append(running)
    return running


async def test_a_request_goes_through_a_tunnel_and_no_token_is_left(site: Site) -> None:
    await site.start_server()
    for scheme, port in (("http", site.http_port), ("https", site.https_port)):
        running = await helm_test(site, f"{scheme}://localhost:{port}")

        assert await running.wait_exit(seconds=60) == 0, str(running)
        assert "ok: a request went through a tunnel" in running.output
    assert await site.api("GET", "/api/tokens", token=site.admin_token) == []


async def test_an_edge_that_is_somebody_else_fails_the_test(site: Site) -> None:
    await site.start_server()
    # The API answers every host name, but never with the page of the tunnel.
    running = await helm_test(site, f"http://localhost:{site.api_port}")

    assert await running.wait_exit(seconds=60) == 1
    assert "expected 200" in running.output
