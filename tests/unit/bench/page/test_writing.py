from pathlib import Path

from helpers.bench_records import record_of
from moleport_bench.page.writing import make_page, make_plots, write_page
from moleport_bench.record import Record, load_record

DOCS = Path(__file__).parents[4] / "docs"


def test_a_partial_run_tells_what_it_has_and_what_was_missing() -> None:
    page = make_page(record_of("bulk", {"ssh": [{"down": 200.0}, {"down": 210.0}]}))

    assert "### Bulk transfers" in page
    assert "Rounds: 2." in page
    assert "### One connection" not in page
    assert "chisel (chisel is not on PATH)" in page
    assert "not measured |" in page


def test_few_rounds_are_called_preliminary() -> None:
    few = record_of("bulk", {"ssh": [{"down": 200.0}] * 2})
    enough = record_of("bulk", {"ssh": [{"down": 200.0}] * 3})

    assert "**Preliminary:** fewer than 3 rounds" in make_page(few)
    assert "Preliminary" not in make_page(enough)


def test_plots_of_figures_that_are_gone_are_removed(tmp_path: Path) -> None:
    record = record_of("bulk", {"ssh": [{"down": 200.0}]})
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "old.svg").write_text("<svg/>")

    write_page(record, tmp_path)

    assert [path.name for path in (tmp_path / "benchmarks").iterdir()] == ["bulk-down.svg"]


def test_an_empty_record_makes_a_page_as_well() -> None:
    assert make_page(Record()).startswith("# Benchmarks")


def test_the_page_of_the_repository_is_made_from_its_raw_data() -> None:
    record = load_record(DOCS / "benchmarks" / "data.json")

    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == make_page(record)
    plots = {
        path.name: path.read_text(encoding="utf-8") for path in (DOCS / "benchmarks").glob("*.svg")
    }
    assert plots == make_plots(record)
