"""What the image is made from, without building it; tests/e2e/cluster runs it."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / "image" / lock).read_text()
    return dict(re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)", text))


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        (
            "runtime.lock",
            PROJECT["project"]["dependencies"]
            + PROJECT["project"]["optional-dependencies"]["server"]
            + PROJECT["project"]["optional-dependencies"]["operator"],
        ),
        ("build.lock", PROJECT["dependency-groups"]["image"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
        (
            "build.lock",
            PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["requires"],
        ),
    ],
    ids=["runtime", "group", "backend", "compiler"],
)
def test_the_lock_files_pin_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    pins = pinned(lock)

    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"make lock: {requirement.name} is not in {lock}"
        assert requirement.specifier.contains(version), f"make lock: {requirement}, not {version}"


@pytest.mark.parametrize("lock", ["runtime.lock", "build.lock"])
def test_everything_pinned_has_its_hashes_and_nothing_says_where_it_was_found(lock: str) -> None:
    text = (ROOT / "image" / lock).read_text()

    for entry in re.split(r"(?m)^(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text


def test_the_builder_is_sent_what_the_image_copies_and_no_more() -> None:
    copied = {
        name.split("/")[0]
        for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", DOCKERFILE)
        for name in line.split()[:-1]
    }
    sent = set(re.findall(r"(?m)^!(.*)$", (ROOT / ".dockerignore").read_text()))

    assert sent == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    assert re.findall(r"(?m)^USER (.*)$", DOCKERFILE) == ["65532:65532"]
