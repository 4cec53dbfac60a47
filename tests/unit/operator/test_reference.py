from pathlib import Path

from moleport_operator.reference import page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "resources.md"


def test_the_page_is_made_from_the_definitions_of_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_the_page_explains_fields_of_spec_and_status() -> None:
    assert "| `spec.rotation.overlap` | string |  | How long" in page()
    assert "| `status.fingerprint` |" in page()
