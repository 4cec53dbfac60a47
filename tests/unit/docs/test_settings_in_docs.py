"""Settings that the documentation shows are settings of the server and of moleport.yaml."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moleport_agent.tunnel_file import read_tunnel_file
from moleport_server.config.load import resolve

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIG = Path("moleport-server.toml")
REST_OF_A_SERVER = {
    "MOLEPORT__AUTH__ADMIN_TOKEN_FILE": "/etc/moleport/admin-token",
    "MOLEPORT__TLS__CERTIFICATE_FILE": "/etc/moleport/tls/tls.crt",
    "MOLEPORT__TLS__KEY_FILE": "/etc/moleport/tls/tls.key",
}
"""What a page leaves out when it shows one section only."""


def blocks(language: str) -> Iterator[Any]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for page in PAGES:
        for number, block in enumerate(pattern.findall(page.read_text(encoding="utf-8")), 1):
            if language == "yaml" and "\ntunnels:" not in f"\n{block}":
                continue  # of a container or of Kubernetes
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("block", list(blocks("toml")))
def test_a_settings_file_is_accepted(block: str) -> None:
    resolved = resolve(
        {},
        REST_OF_A_SERVER,
        lambda path: block if path == CONFIG else "secret",
        config_file=CONFIG,
    )

    assert resolved.settings.server.domains


@pytest.mark.parametrize("block", list(blocks("yaml")))
def test_a_tunnel_file_is_accepted(block: str, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("mole:tunnel\n")
    file = tmp_path / "moleport.yaml"
    file.write_text(block)

    assert read_tunnel_file(file).tunnels
