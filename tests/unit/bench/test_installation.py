from pathlib import Path

import pytest

from moleport_bench.installation import how_to_install, missing_for, source_digest
from moleport_bench.peers import PEERS

BY_NAME = {peer.name: peer for peer in PEERS}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("haproxy", "haproxy is missing: apt-get install haproxy"),
        ("bore", "bore is missing: cargo install bore-cli --locked"),
        ("frps", "frps is not on PATH"),
    ],
)
def test_what_is_missing_is_told_with_its_cure(name: str, said: str) -> None:
    assert how_to_install(name) == said


def test_a_peer_that_the_harness_installed_can_take_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_for(BY_NAME["rathole"], tmp_path) is not None

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rathole").touch()

    assert missing_for(BY_NAME["rathole"], tmp_path) is None


def test_moleport_itself_is_never_missing(tmp_path: Path) -> None:
    assert missing_for(BY_NAME["moleport-http"], tmp_path) is None


def test_the_digest_changes_with_the_sources(tmp_path: Path) -> None:
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire" / "one.py").write_text("1")
    for name in ("pyproject.toml", "README.md"):
        (tmp_path / name).touch()
    before = source_digest(tmp_path)

    (tmp_path / "wire" / "one.py").write_text("2")

    assert source_digest(tmp_path) != before
