from pathlib import Path

import pytest

from moleport_bench.installation import (
    OWN_CRATES,
    how_to_install,
    install_programs,
    missing_for,
    source_digest,
)
from moleport_bench.peers import PEERS

BY_NAME = {peer.name: peer for peer in PEERS}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("haproxy", "haproxy is missing: apt-get install haproxy"),
        ("bore", "bore is missing: cargo install bore-cli --locked"),
        ("frps", "frps is not on PATH"),
        (
            "rustunnel-client-double",
            "rustunnel-client-double is missing: it takes cargo to build bench/rustunnel_client",
        ),
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


def test_a_program_of_this_repository_is_built_anew_only_when_its_sources_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, crate, cache = "rustunnel-client-double", tmp_path / "crate", tmp_path / "cache"
    for folder in (crate / "src", cache / "bin", tmp_path / "path"):
        folder.mkdir(parents=True)
    for file in ("Cargo.toml", "Cargo.lock", "src/main.rs"):
        (crate / file).touch()
    for file, text in (
        ("nice", 'shift 2; exec "$@"'),
        ("cargo", f"exec /bin/touch {cache}/bin/{name}"),
    ):
        (tmp_path / "path" / file).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "path" / file).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setitem(OWN_CRATES, name, crate)
    told: list[str] = []

    for text in ("one", "one", "two"):
        (crate / "src" / "main.rs").write_text(text)
        install_programs([name], cache, told.append)

    assert told == [f"building {name} with cargo (minutes, once)"] * 2


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
