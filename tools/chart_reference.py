"""Writes what is made from the chart's values: `values.schema.json`, its README, and the page of values.

The sources are `values.yaml` with a comment `# -- …` above each value, `values.schema.yaml` with what a
default cannot say, and the settings of the server for `server.settings`. Also copies the definitions of the
operator into the chart. Run by `make chart`; tests compare the results.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from moleport_server.config import schema as settings

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "moleport"
CRDS: Final = ROOT / "operator" / "moleport_operator" / "crds"
PAGE: Final = ROOT / "docs" / "reference" / "chart-values.md"

_MEANING = re.compile(r"^\s*# -- (.*)$")
_MORE = re.compile(r"^\s*# (?!--)(.*)$")
_KEY = re.compile(r"^(\s*)([A-Za-z_]+):(.*)$")

README_HEAD: Final = """# moleport

<!-- Made from values.yaml by `make chart`; do not edit. -->

A tunnel server of your own, and an operator that turns TunnelTokens into credentials.

```console
$ helm install moleport charts/moleport --namespace moleport --create-namespace \\
    --set domain=tunnels.example.com --set service.edge.type=LoadBalancer
$ helm test moleport --namespace moleport
```

How to [install](../../docs/how-to/install-in-kubernetes.md),
[upgrade](../../docs/how-to/upgrade-in-kubernetes.md) and
[uninstall](../../docs/how-to/uninstall-from-kubernetes.md) it, and what to do about
[its alerts](../../docs/how-to/runbooks.md).

## Values

"""

PAGE_HEAD: Final = """# Values of the Helm chart

<!-- Made from charts/moleport/values.yaml by `make chart`; do not edit. -->

Unknown values are refused. What belongs together is [explained here](../how-to/install-in-kubernetes.md).

"""


class ChartError(Exception):
    """The sources do not say what they have to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One documented value."""

    path: str
    default: Any
    meaning: str


def read_values(text: str) -> list[Value]:
    """Return the documented values in their order.

    Raises:
        ChartError: a leaf has no comment.
    """
    tree = yaml.safe_load(text)
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    meaning: str | None = None
    for line in text.splitlines():
        if match := _MEANING.match(line):
            meaning = match[1]
        elif meaning is not None and (match := _MORE.match(line)):
            meaning += f" {match[1]}"
        elif match := _KEY.match(line):
            depth = len(match[1])
            path = [(outer, key) for outer, key in path if outer < depth]
            path.append((depth, match[2]))
            if meaning is not None:
                found[".".join(key for _, key in path)] = meaning
            meaning = None
        else:
            meaning = None
    missing = [path for path in _leaves(tree, found) if path not in found]
    if missing:
        raise ChartError(f"values.yaml: no `# --` above {', '.join(missing)}")
    return [
        Value(path=path, default=_get(tree, path), meaning=said) for path, said in found.items()
    ]


def make_schema(tree: Mapping[str, Any], values: list[Value], extra: Mapping[str, Any]) -> Any:
    """Return the JSON schema of the values.

    Raises:
        ChartError: `extra` names a value that does not exist.
    """
    documented = {value.path: value for value in values}
    unused = set(extra)

    def node(path: str, default: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if path in documented:
            made["description"] = documented[path].meaning
        if isinstance(default, dict) and not (path in documented and not default):
            made |= {"type": "object", "additionalProperties": False}
            made["properties"] = {
                key: node(f"{path}.{key}" if path else key, inner) for key, inner in default.items()
            }
        elif isinstance(default, dict):
            made |= {"type": "object"}
        elif isinstance(default, list):
            made |= {"type": "array"}
        elif default is not None:
            kind = {bool: "boolean", int: "integer", float: "number", str: "string"}[type(default)]
            made["type"] = kind
        for pattern, more in extra.items():
            if fnmatch(path, pattern) and path.count(".") == pattern.count("."):
                unused.discard(pattern)
                # Keys that only the schema knows join those of values.yaml.
                keys = {**made.get("properties", {}), **more.get("properties", {})}
                made |= more | ({"properties": keys} if keys else {})
        if path == "server.settings":
            made |= settings_schema()
        return made

    schema = node("", dict(tree))
    if unused:
        raise ChartError(f"values.schema.yaml: no value is named {', '.join(sorted(unused))}")
    # Helm puts these into the values of a chart that is part of another one.
    schema["properties"]["enabled"] = {"type": "boolean", "description": "For a parent chart."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "moleport", **schema}


def settings_schema() -> dict[str, Any]:
    """Return the schema of the server's settings, so that a misspelt one is refused by helm."""
    sections: dict[str, Any] = {
        name: {"type": "object", "additionalProperties": False, "properties": {}}
        for name in settings.sections()
    }
    for key in settings.keys().values():
        sections[key.section]["properties"][key.name] = _setting(key)
    return {"additionalProperties": False, "properties": sections}


def _setting(key: settings.Key) -> dict[str, Any]:
    said = key.expectation
    if said.startswith("list of"):
        return {"type": ["array", "string"]}
    try:
        made = msgspec.json.schema(key.type)
    except TypeError:
        made = {"$defs": {}}
    if "$defs" in made:
        # Types of our own are read from text.
        return {"type": ["string", "null"]}
    return made


def make_table(values: list[Value]) -> str:
    """Return a table of all values for people, in sections by their first key."""
    lines = ["| Value | Default | Meaning |", "|---|---|---|"]
    for value in values:
        default = json.dumps(value.default) if value.default not in ("", None) else ""
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{value.path}` | {shown} | {value.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def render() -> dict[Path, str]:
    """Return every file that is made from others, with its text."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = read_values(text)
    extra = yaml.safe_load((CHART / "values.schema.yaml").read_text(encoding="utf-8"))
    schema = make_schema(yaml.safe_load(text), values, extra)
    table = make_table(values)
    crds = {
        CHART / "files" / "crds" / path.name: path.read_text("utf-8") for path in CRDS.iterdir()
    }
    return crds | {
        CHART / "values.schema.json": json.dumps(schema, indent=2) + "\n",
        CHART / "README.md": README_HEAD + table,
        PAGE: PAGE_HEAD + table,
    }


def main() -> None:
    """Write them."""
    try:
        rendered = render()
    except ChartError as error:
        sys.exit(str(error))
    for path, text in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _leaves(
    tree: Mapping[str, Any], documented: Mapping[str, str], path: str = ""
) -> Iterator[str]:
    for key, inner in tree.items():
        here = f"{path}.{key}" if path else key
        if isinstance(inner, dict) and inner and here not in documented:
            yield from _leaves(inner, documented, here)
        else:
            yield here


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


if __name__ == "__main__":
    main()
