"""The generated pages."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from moleport_server.config import reference
from moleport_server.config.load import load
from moleport_server.config.schema import keys
from moleport_server.config.settings import ServerSettings

DIRECTORY = Path(__file__).parents[4] / "docs" / "reference"


@pytest.mark.parametrize("name", [reference.PAGE, reference.SAMPLE])
def test_the_committed_file_is_current(name: Any, tmp_path: Path) -> None:
    reference.main(tmp_path)

    written = (tmp_path / name).read_text("utf-8")
    committed = (DIRECTORY / name).read_text("utf-8")

    hint = "run: python -m moleport_server.config.reference docs/reference"
    assert written == committed, hint


@pytest.mark.parametrize("key", keys().values(), ids=lambda key: key.path)
def test_the_page_says_something_about_every_setting(key: Any) -> None:
    row = re.search(rf"^\| `{key.path}`<br>`{key.variable}` .*$", reference.render_page(), re.M)

    assert row is not None
    assert len(row[0].split(" | ")[-1]) > 15


def test_the_sample_changes_nothing() -> None:
    environ = {"MOLEPORT__AUTH__ADMIN_TOKEN": "x", "MOLEPORT__LISTEN__CONTROL_TLS": "false"}
    sample = reference.render_sample()

    settings = load({}, environ, lambda _path: sample, config_file=Path("x.toml"))

    assert settings == load({}, environ, lambda _path: "")


def test_uncommented_the_sample_is_the_defaults() -> None:
    lines = reference.render_sample().splitlines()
    text = "\n".join(line[1:] if re.match(r"#[^ #]|#  \S", line) else line for line in lines)
    # Settings without a default have nothing behind the sign.
    document = tomllib.loads(re.sub(r"^\w+ =$", "", text, flags=re.M))

    defaults = ServerSettings()
    assert document["limits"]["head_bytes"] == defaults.limits.head_bytes
    assert tuple(document["names"]["reserved"]) == defaults.names.reserved
    assert document["listen"]["edge_https"] == str(defaults.listen.edge_https)
