"""Writes what helm makes of the chart: golden files for its tests, and `manifests/` for people without helm.

Secrets that the chart would generate are not part of either: golden files show that they are there, and
`manifests/` asks for them by name. Run by `make chart`; tests compare the results.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "moleport"
SETS: Final = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())
GOLDEN: Final = ROOT / "tests" / "unit" / "chart" / "golden"
MANIFESTS: Final = ROOT / "manifests"
KUBERNETES: Final = "1.34.0"
SECONDS: Final = 60
"""For one call of helm; half a second is usual."""

CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moleport"  # noqa: TID251 - a tool
)
"""What tools/chart/install fills."""
NO_HELM: Final = "no helm: `make chart-tools` builds it (needs Go, two minutes)"

MANIFEST_VALUES: Final[Mapping[str, Any]] = {
    "fullnameOverride": "moleport",
    "admin": {"existingSecret": "moleport-admin"},
    "tls": {
        "mode": "existingSecret",
        "existingSecret": "moleport-tls",
        "internal": {"existingSecret": "moleport-tls"},
    },
    "operator": {"replicas": 2, "agentCA": {"secret": "moleport-tls"}},
    "crds": {"keep": False},
    "uninstall": {"objects": "Delete"},
    "tests": {"enabled": False},
}
MANIFEST_HEAD: Final = (
    "# Made from charts/moleport by `make chart`; do not edit. See README.md beside it.\n"
)


def find_tool(name: str) -> Path | None:
    """Return a program of the machine, else of the user's cache, or None."""
    found = shutil.which(name) or shutil.which(name, path=str(CACHE / "bin"))
    return Path(found) if found else None


def helm(*arguments: str, code: int | None = 0) -> str:
    """Run helm; returns what it prints, and on a failure what it says."""
    program = find_tool("helm")
    if program is None:
        raise FileNotFoundError(NO_HELM)
    done = subprocess.run(  # noqa: S603 - a tool that runs tools
        [program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if code is not None and done.returncode != code:
        raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr}")
    return done.stdout + done.stderr


def template(*arguments: str, name: str = "mole", namespace: str = "tunnels") -> str:
    """Return what helm renders, hooks and notes included."""
    where = ("--namespace", namespace, "--kube-version", KUBERNETES)
    return helm("template", name, str(CHART), *where, *arguments)


def objects(text: str) -> list[dict[str, Any]]:
    """Return rendered objects, in helm's order."""
    return [body for body in yaml.safe_load_all(text) if body]


def render_set(name: str) -> list[dict[str, Any]]:
    """Return the objects of one set of values in ci/."""
    return objects(template("--values", str(CHART / "ci" / f"{name}-values.yaml")))


def render_golden(name: str) -> str:
    """Return what a golden file has: everything but the definitions, and no generated secret."""
    kept = []
    for body in render_set(name):
        if body["kind"] == "CustomResourceDefinition":
            continue
        for key, value in body.get("data", {}).items():
            if body["kind"] == "Secret" or key.endswith(".json"):
                body["data"][key] = f"<{len(value) and 'something'}>"
        annotations = body["metadata"].get("annotations", {})
        if "moleport.dev/issued" in annotations:
            annotations["moleport.dev/issued"] = "<now>"
        kept.append(body)
    return _dump(kept)


def render_manifests() -> dict[Path, str]:
    """Return the files of `manifests/` that are made from the chart."""
    values = yaml.safe_dump(dict(MANIFEST_VALUES))
    path = CHART / "ci" / ".manifest-values.yaml"
    path.write_text(values, encoding="utf-8")
    try:
        bodies = objects(template("--values", str(path), name="moleport", namespace="moleport"))
    finally:
        path.unlink()
    files: dict[str, list[dict[str, Any]]] = {}
    crds = {}
    for body in bodies:
        metadata = body["metadata"]
        if body["kind"] == "CustomResourceDefinition":
            continue
        if "helm.sh/hook" in metadata.get("annotations", {}):
            continue
        labels = metadata["labels"]
        labels.pop("helm.sh/chart")
        labels["app.kubernetes.io/managed-by"] = "kubectl"
        part = labels["app.kubernetes.io/component"]
        if metadata["name"].endswith("-lease"):
            place = "rbac/lease"
        elif "rbac" in body["apiVersion"]:
            place = "rbac/personas" if part == "rbac" else "rbac/operator"
        else:
            place = f"install/{part}"
        if body["kind"] == "Deployment":
            _leave_one_operator(body)
        files.setdefault(place, []).append(body)
    for source in sorted((ROOT / "operator" / "moleport_operator" / "crds").iterdir()):
        crds[MANIFESTS / "crds" / source.name] = source.read_text(encoding="utf-8")
    return crds | {
        MANIFESTS / f"{place}.yaml": MANIFEST_HEAD + _dump(found) for place, found in files.items()
    }


def _leave_one_operator(body: dict[str, Any]) -> None:
    """Undo what two replicas changed: they are only asked for to get the rights on a Lease."""
    spec = body["spec"]
    spec["replicas"], spec["strategy"] = 1, {"type": "Recreate"}
    [container] = spec["template"]["spec"]["containers"]
    container["args"] = [text for text in container["args"] if not text.startswith("--lease")]


def main() -> None:
    """Write them."""
    for name in SETS:
        path = GOLDEN / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_golden(name), encoding="utf-8")
    for path, text in render_manifests().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Texts of many lines as blocks, so that differences can be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    clean = re.sub(r"[ \t]+\n", "\n", text)
    style = "|" if "\n" in clean else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", clean, style=style)


_Dumper.add_representer(str, _text)


def _dump(bodies: list[dict[str, Any]]) -> str:
    return yaml.dump_all(bodies, Dumper=_Dumper, sort_keys=False, width=110)


if __name__ == "__main__":
    main()
