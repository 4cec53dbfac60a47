"""Writes `docs/reference/resources.md` from the definitions: `python -m moleport_operator.reference`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from moleport_operator.main import CRDS

HEAD = """# Resources of the operator

Made from the definitions by `make docs`; do not edit. How they behave: [the operator](operator.md).
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(_kind(name) for name in CRDS)])


def _kind(name: str) -> str:
    text = (files("moleport_operator") / "crds" / name).read_text(encoding="utf-8")
    spec = yaml.safe_load(text)["spec"]
    version, names = spec["versions"][0], spec["names"]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"## {names['kind']} ({', '.join(names['shortNames'])})",
        "",
        schema["description"],
        "",
        f"`apiVersion: {spec['group']}/{version['name']}`, {spec['scope'].lower()} scope.",
        "",
        "| Field | Type | Default | Meaning |",
        "|---|---|---|---|",
        *_rows("spec", schema["properties"]["spec"]),
        *_rows("status", schema["properties"]["status"]),
    ]
    return "\n".join(lines) + "\n"


def _rows(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        whole = f"{path}.{name}"
        default = (
            f"`{field['default']}`" if "default" in field and field["type"] != "object" else ""
        )
        text = field.get("description", "").replace("|", "\\|")
        yield f"| `{whole}` | {_type(field)} | {default} | {text} |"
        if name != "conditions":
            items = field.get("items", {})
            yield from _rows(f"{whole}[]" if items.get("properties") else whole, items or field)


def _type(field: Mapping[str, Any]) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in field:
        return " \\| ".join(str(value) for value in field["enum"] if value) or "empty"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    return str(field.get("format") or field["type"])


if __name__ == "__main__":
    Path("docs/reference/resources.md").write_text(page(), encoding="utf-8")
