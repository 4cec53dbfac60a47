from pathlib import Path

from moleport_server.metrics.catalogue import CATALOGUE
from moleport_server.metrics.reference import PAGE, reference

ROOT = Path(__file__).parents[4]


def test_the_committed_page_is_current() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == reference(), (
        "run: python -m moleport_server.metrics.reference"
    )


def test_every_metric_has_its_row() -> None:
    page = reference()

    assert all(f"| `{row.name}` | {row.kind} |" in page for row in CATALOGUE)
