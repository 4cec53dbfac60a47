import json
import re
from pathlib import Path

import pytest

from moleport_wire import reference
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import HEADER, KNOWN_TYPES, Code

PAGE = Path(__file__).parents[3] / reference.PAGE


def test_the_committed_page_is_current(tmp_path: Path) -> None:
    page = PAGE.read_text("utf-8")
    copy = tmp_path / "protocol.md"
    copy.write_text(page, "utf-8")

    reference.main(copy)

    assert copy.read_text("utf-8") == page, "run: python -m moleport_wire.reference"


def test_every_frame_and_code_has_a_row() -> None:
    assert {reference.number_of(name) for name in reference.FRAMES} == KNOWN_TYPES
    assert set(reference.CODES) == set(Code)
    assert set(reference.MEMBERS) <= set(reference.FRAMES)


def test_every_frame_with_json_has_its_members_listed() -> None:
    with_json = {name for name, row in reference.FRAMES.items() if row.payload == "JSON"}

    assert with_json == set(reference.MEMBERS)


def test_the_extension_lives_where_stock_clients_skip() -> None:
    for name, row in reference.FRAMES.items():
        assert row.extension == (reference.number_of(name) > frames.BIND_REVOKED)


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no block named frames"):
        reference.render("# Nothing\n")


def test_the_example_has_true_types_and_lengths() -> None:
    example = PAGE.read_text("utf-8").partition("byte by byte\n")[2]
    rows = re.findall(
        r"^[DK]  (\w{2}) (\w{8}) (\w{8})  (\{.*\}|\w+)\s+([A-Z_]+)(?:,.*)?$", example, re.M
    )
    assert len(rows) == 4

    for kind, stream_id, length, payload, name in rows:
        data = payload.encode() if payload.startswith("{") else bytes.fromhex(payload)
        assert int(kind, 16) == reference.number_of(name)
        assert HEADER.pack(int(kind, 16), int(stream_id, 16), len(data)).hex() == (
            kind + stream_id + length
        )
        if payload.startswith("{"):
            assert json.loads(payload)
