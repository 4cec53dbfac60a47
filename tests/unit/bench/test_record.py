from pathlib import Path

import msgspec
import pytest

from helpers.bench_records import record_of
from moleport_bench.record import Record, Sample, load_record, save_record


def sample(run: str, number: int, value: float, figure: str = "bulk") -> Sample:
    return Sample(run=run, figure=figure, peer="ssh", round=number, values={"down": value})


def test_a_newer_run_replaces_the_older_one_whole() -> None:
    record = Record()
    for number in (1, 2, 3):
        record.add(sample("old", number, 1.0))

    record.add(sample("new", 1, 2.0))

    assert [(cell.run, cell.round) for cell in record.of("bulk", "ssh")] == [("new", 1)]


def test_other_figures_of_the_older_run_stay() -> None:
    record = Record()
    record.add(sample("old", 1, 1.0, figure="single"))

    record.add(sample("new", 1, 2.0))

    assert list(record.figures()) == ["single", "bulk"]


def test_runs_without_a_cell_are_forgotten() -> None:
    record = record_of("bulk", {"ssh": [{"down": 1.0}]}, run="old")
    newer = record_of("bulk", {"ssh": [{"down": 2.0}]}, run="new")

    for cell in newer.samples:
        record.add(cell)
    record.describe(newer.runs[0])

    assert [run.id for run in record.runs] == ["new"]


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    record = record_of("bulk", {"ssh": [{"down": 1.5}, {"down": 2.5}]})

    save_record(record, tmp_path / "deep" / "data.json")

    assert load_record(tmp_path / "deep" / "data.json") == record
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data.json"]


def test_without_a_file_the_record_is_empty(tmp_path: Path) -> None:
    assert load_record(tmp_path / "data.json") == Record()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"samples": 1}')

    with pytest.raises(msgspec.ValidationError):
        load_record(tmp_path / "data.json")
