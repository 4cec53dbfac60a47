"""Rules about the tree itself: layers, mirrors, packaging, and traps that Python's import system sets.

Each rule is one that a reviewer would otherwise have to remember.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
PACKAGES = {
    "wire": "moleport_wire",
    "server": "moleport_server",
    "agent": "moleport_agent",
    "operator": "moleport_operator",
}
WITHOUT_MIRROR = {
    "server/moleport_server/clock.py": "two names of the standard library",
    "server/moleport_server/app/draining.py": "tests/e2e/process ends servers under load",
    "server/moleport_server/app/foundation.py": "tests/e2e/process starts all of it",
    "server/moleport_server/app/front.py": "tests/e2e/process has agents and callers before it",
    "server/moleport_server/app/listeners.py": "tests/e2e/process connects to each of them",
    "server/moleport_server/app/probes.py": "tests/e2e/process asks for readiness before each test",
    "server/moleport_server/app/rest_api.py": "tests/e2e/process calls it",
    "server/moleport_server/app/server.py": "tests/e2e/process starts, stops and kills it",
    "server/moleport_server/api/ports.py": "declarations that other modules implement",
    "server/moleport_server/capture/replay.py": "a declaration that edge/replay.py implements",
    "server/moleport_server/registry/live.py": "plain state; the registry's tests change it",
    "server/moleport_server/registry/ports.py": "a declaration that edge/tcp.py implements",
    "server/moleport_server/registry/upstream.py": "declarations that adapters implement",
    "server/moleport_server/store/base.py": "declarations; tests/helpers/conformance holds all to them",
    "server/moleport_server/store/statements.py": "SQL, which the conformance suite runs",
    "agent/moleport_agent/events.py": "plain records, shown by the tests of lines and view_state",
    "agent/moleport_agent/settings.py": "plain records, made by the tests of config and tunnels",
    "operator/moleport_operator/clock.py": "two names of the standard library",
    "operator/moleport_operator/cluster.py": "declarations that kube.py implements",
    "operator/moleport_operator/plan/records.py": "plain records; the tests of the plans make them",
    "operator/moleport_operator/settings.py": "plain records, made by main.py",
    "operator/moleport_operator/token_server.py": "declarations that server.py implements",
    "wire/moleport_wire/aio/transport.py": "declarations that websocket.py implements",
}
"""Modules without a test module of their own, and why that is right."""
FREE_STANDING_TESTS = {
    "tests/unit/wire/yamux/test_interop.py": "all of yamux against an independent peer",
    "tests/unit/server/api/test_conformance.py": "the whole API against its own document",
    "tests/unit/agent/cli/test_unattended.py": "samples of the documentation",
}
"""Test modules that mirror no module, and why."""
NOT_SHIPPED = {"bench/moleport_bench": "measures the others; it runs from the checkout only"}
BANNED_NAMES = {"manager", "managers", "helper", "helpers", "util", "utils", "common", "misc"}

IMPORTS_ALONE = """
import importlib, os, sys, traceback

names = sys.argv[1:]
for name in names:
    importlib.import_module(name)  # once, so that libraries are loaded before the forks
for loaded in [name for name in sys.modules if name.startswith("moleport_")]:
    del sys.modules[loaded]
failed = []
for name in names:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(", ".join(failed) or None)
"""


def modules() -> Iterator[Path]:
    """Yield our modules, relative to the root of the repository."""
    for root, package in PACKAGES.items():
        for path in sorted((ROOT / root / package).rglob("*.py")):
            if path.name != "__init__.py":
                yield path.relative_to(ROOT)


def mirror_of(module: Path) -> Path:
    root, _package, *folders, name = module.parts
    return Path("tests", "unit", root, *folders, f"test_{name}")


def settings() -> dict[str, dict[str, dict[str, object]]]:
    document: dict[str, dict[str, dict[str, object]]] = tomllib.loads(
        (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    return document


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False
    )


def test_layers_are_kept() -> None:
    result = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")

    assert result.returncode == 0, result.stdout


def test_every_module_has_a_test_module() -> None:
    missing = [
        str(mirror_of(module)) for module in modules() if not (ROOT / mirror_of(module)).exists()
    ]
    excused = {str(mirror_of(Path(module))) for module in WITHOUT_MIRROR}

    assert sorted(set(missing) - excused) == []


def test_exceptions_from_the_mirror_rule_are_still_needed() -> None:
    assert [m for m in WITHOUT_MIRROR if not (ROOT / m).exists()] == []
    assert [m for m in WITHOUT_MIRROR if (ROOT / mirror_of(Path(m))).exists()] == []
    assert [m for m in FREE_STANDING_TESTS if not (ROOT / m).exists()] == []


def test_every_test_module_mirrors_a_module() -> None:
    mirrors = {str(mirror_of(module)) for module in modules()}
    found = {
        str(path.relative_to(ROOT))
        for root in PACKAGES
        for path in (UNIT / root).rglob("test_*.py")
    }

    assert sorted(found - mirrors - set(FREE_STANDING_TESTS)) == []


def test_no_test_folder_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("root", ["wire", "server", "agent", "operator"])
def test_a_source_root_is_no_package(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists()


def test_the_standard_module_operator_is_found_from_the_root_of_the_repository() -> None:
    result = run(sys.executable, "-c", "import operator; print(operator.eq(1, 1))")

    assert result.stdout == "True\n"


def test_packaging_lists_the_packages_that_exist() -> None:
    document = settings()
    wheel = document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]  # type: ignore[index]
    # Without modules there is nothing to ship: a folder that waits for its first module is none.
    packages = {
        str(init.parent.relative_to(ROOT)) for init in ROOT.glob("*/moleport_*/__init__.py")
    }
    existing = sorted(packages - set(NOT_SHIPPED))

    assert sorted(wheel) == existing
    assert existing == sorted(f"{root}/{package}" for root, package in PACKAGES.items())


def test_every_folder_of_a_package_is_a_package() -> None:
    without_init = {
        str(module.parent)
        for module in modules()
        if not (ROOT / module.parent / "__init__.py").exists()
    }

    assert without_init == set()


def test_every_package_says_that_it_is_typed() -> None:
    assert [p for r, p in PACKAGES.items() if not (ROOT / r / p / "py.typed").exists()] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(m) for m in modules() if set(m.stem.split("_")) & BANNED_NAMES] == []


def test_the_version_is_told_in_one_place() -> None:
    version = settings()["project"]["version"]
    pattern = re.compile(rf"[\"']{re.escape(str(version))}[\"']")

    assert [str(m) for m in modules() if pattern.search((ROOT / m).read_text("utf-8"))] == []


@pytest.mark.skipif(sys.platform == "win32", reason="uses fork to be quick")
def test_each_module_can_be_imported_first() -> None:
    names = [".".join(module.with_suffix("").parts[1:]) for module in modules()]
    result = run(sys.executable, "-c", IMPORTS_ALONE, *names)

    assert result.returncode == 0, result.stderr
