import errno
import shutil
import sqlite3
from pathlib import Path

import pytest

from moleport_server.errors import (
    InvalidRequest,
    StoreCorrupt,
    StoreError,
    StoreFull,
)
from moleport_server.store.failures import store_error, translating

PATH = Path("/data/state.db")


def sqlite_error(code: int, text: str = "text") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        pytest.param(sqlite_error(sqlite3.SQLITE_FULL), StoreFull, "no room", id="full"),
        pytest.param(OSError(errno.ENOSPC, "No space"), StoreFull, "no room", id="ENOSPC"),
        pytest.param(OSError(errno.EDQUOT, "Quota"), StoreFull, "no room", id="EDQUOT"),
        pytest.param(sqlite_error(sqlite3.SQLITE_CORRUPT), StoreCorrupt, "restore", id="corrupt"),
        pytest.param(sqlite_error(sqlite3.SQLITE_NOTADB), StoreCorrupt, "restore", id="notadb"),
        pytest.param(sqlite_error(sqlite3.SQLITE_BUSY), StoreError, "locked", id="busy"),
        pytest.param(
            sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreError, "locked", id="extended code"
        ),
        pytest.param(sqlite_error(sqlite3.SQLITE_ERROR, "odd"), StoreError, "odd", id="other"),
        pytest.param(sqlite3.ProgrammingError("closed"), StoreError, "closed", id="without code"),
        pytest.param(OSError(errno.EACCES, "denied"), StoreError, "denied", id="EACCES"),
    ],
)
def test_an_error_says_what_to_do(
    error: sqlite3.Error | OSError, expected: type[StoreError], text: str
) -> None:
    with pytest.raises(StoreError, match=text) as caught, translating(PATH):
        raise error

    assert type(caught.value) is expected
    assert str(PATH) in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("room_bytes", "expected"), [pytest.param(0, StoreFull), pytest.param(2**40, StoreError)]
)
def test_an_io_error_on_a_full_disk_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int, expected: type[StoreError]
) -> None:
    class Usage:
        free = room_bytes

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)

    error = store_error(sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE), tmp_path / "state.db")

    assert type(error) is expected


def test_an_io_error_in_a_directory_that_is_gone_stays_one(tmp_path: Path) -> None:
    error = store_error(sqlite_error(sqlite3.SQLITE_IOERR), tmp_path / "gone" / "state.db")

    assert type(error) is StoreError


def test_text_that_is_no_unicode_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidRequest), translating(PATH):
        "\ud800".encode()
