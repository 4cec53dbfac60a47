import json

import pytest

from moleport_agent.answers import Status
from moleport_agent.cli.printing import print_json, print_json_line, print_table


def test_columns_are_aligned_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "LONG HEAD"), [("long value", "x"), ("\x1b[2J", "y")], empty="nothing")

    assert capsys.readouterr().out == "A           LONG HEAD\nlong value  x\n\\x1b[2J     y\n"


def test_no_rows_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [], empty="nothing here")

    assert capsys.readouterr().out == "nothing here\n"


def test_documents_and_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Status(ok=True, active_sessions=1, active_tunnels=2))
    print_json_line({"a": "é"})

    document, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert json.loads(document) == {"ok": True, "active_sessions": 1, "active_tunnels": 2}
    assert line == '{"a":"é"}'
