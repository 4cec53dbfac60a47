"""Writes `docs/reference/metrics.md` from the catalogue: `python -m moleport_server.metrics.reference`.

A test compares the page with this text, so a metric cannot appear or change without its page.
"""

import sys
from pathlib import Path
from typing import Final

from moleport_server.metrics.catalogue import CATALOGUE, Row

PAGE: Final = Path("docs/reference/metrics.md")

_INTRODUCTION: Final = """\
# Metrics

`GET /metrics` on the metrics listener (port 9090 by default) answers in the text format of
Prometheus. Labels have few and bounded values; nothing a visitor or an agent chooses becomes one.
Series with known labels exist from the start, with the value 0. Beside the metrics below there are
`process_*` (memory, file descriptors, CPU; Linux only) and `python_gc_*`.

This page is made from the code; `python -m moleport_server.metrics.reference` writes it.

| Metric | Type | Meaning | Labels |
|---|---|---|---|
"""


def reference() -> str:
    """Return the page."""
    rows = "".join(
        f"| `{row.name}` | {row.kind} | {row.meaning} | {_labels(row)} |\n" for row in CATALOGUE
    )
    buckets = "".join(
        f"| `{row.name}` | {', '.join(f'{bound:g}' for bound in row.buckets)} |\n"
        for row in CATALOGUE
        if row.buckets
    )
    return (
        f"{_INTRODUCTION}{rows}\n## Buckets\n\nUpper bounds of the histograms, in seconds.\n\n"
        f"| Metric | Bounds |\n|---|---|\n{buckets}"
    )


def _labels(row: Row) -> str:
    texts = []
    for label, values in row.labels.items():
        shown = ", ".join(f"`{value}`" for value in values)
        texts.append(f"`{label}`: {shown}" if shown else f"`{label}`")
    return "<br>".join(texts)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(reference(), encoding="utf-8")
