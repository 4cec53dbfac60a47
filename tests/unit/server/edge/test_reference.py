from pathlib import Path

from moleport_server.edge.reference import PAGE, reference
from moleport_server.edge.refusals import Refusal

ROOT = Path(__file__).parents[4]


def test_the_committed_page_is_current() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == reference(), (
        "run: python -m moleport_server.edge.reference"
    )


def test_every_case_has_its_row() -> None:
    assert all(f"| `{case.code}` | {case.status} " in reference() for case in Refusal)
