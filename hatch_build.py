"""Compile the data path of a wheel with mypyc; without it the same sources run interpreted.

`MOLEPORT_COMPILE=1 pip wheel .` makes a wheel for this platform and Python whose hot modules are C
extensions (about twice as fast per request); everything else, and every module of a wheel built without
the variable, is plain Python. The container image and the published wheels are compiled. A checkout
(`make setup`) is not, so that an edit counts at once.

The compiled modules are a table in `pyproject.toml`, since a class can only be compiled together with the
classes that inherit from it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "MOLEPORT_COMPILE"
# `make check` does it, with the libraries at hand; a build environment does not have them.
_TYPES_ARE_CHECKED_ELSEWHERE = (
    "--ignore-missing-imports",
    "--follow-imports=silent",
    "--allow-subclassing-any",
    "--no-warn-return-any",
    "--no-warn-unused-ignores",
)


class CompileHook(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs; nothing when it is off."""
        return [*self.config["requires"]] if self._is_on else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell the builder about the results."""
        if not self._is_on or version == "editable":
            return
        build_dir = Path(tempfile.mkdtemp(prefix="moleport-compile-"))
        self._build_dir = build_dir
        for extension in _compile(Path(self.root), self.config["modules"], build_dir):
            target = extension.relative_to(build_dir / "lib").as_posix()
            build_data["force_include"][str(extension)] = target
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what compiling left behind."""
        shutil.rmtree(getattr(self, "_build_dir", ""), ignore_errors=True)

    @property
    def _is_on(self) -> bool:
        return self.target_name == "wheel" and os.environ.get(SWITCH) == "1"


def _compile(root: Path, modules: list[str], build_dir: Path) -> list[Path]:
    # Only installed when compiling is on.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415

    missing = [module for module in modules if not (root / module).exists()]
    if missing:
        raise FileNotFoundError(f"compiled modules in pyproject.toml that do not exist: {missing}")
    before, search_path = Path.cwd(), sys.path[:]
    os.chdir(root)  # mypyc takes module names from relative paths
    try:
        extensions = mypycify(
            ["--config-file", "pyproject.toml", *_TYPES_ARE_CHECKED_ELSEWHERE, *modules],
            opt_level="3",
            debug_level="0",
            target_dir=str(build_dir / "c"),
            group_name="moleport",
        )
        distribution = Distribution({"name": "moleport", "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.build_lib = str(build_dir / "lib")
        command.build_temp = str(build_dir / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
        sys.path[:] = search_path
    return [path for path in (build_dir / "lib").rglob("*") if path.suffix in {".so", ".pyd"}]
