"""The audit log: what is written, what is dropped, and that nobody else can read it."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from helpers.clock import FakeClock
from helpers.waiting import until
from moleport_server.access.audit import MAX_QUEUED, AuditLog
from moleport_wire.aio.tasks import TaskOwner


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(file: Path) -> AuditLog:
    return AuditLog(file, FakeClock(now=1_750_000_000.5))


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_event_is_a_line_in_the_words_of_the_family(audit: AuditLog, file: Path) -> None:
    audit.auth_attempt("192.0.2.7:1", success=True, token_id="t-1")
    audit.auth_attempt("192.0.2.7:1", success=True)
    audit.auth_attempt("192.0.2.7:1", success=False)
    audit.tunnel_registered(session_id="s", tunnel_id="u", protocol="tcp", label="20000")
    audit.tunnel_removed(tunnel_id="u", label="20000")
    audit.token_created(token_id="t-1", label="müller", admin=True)
    audit.token_deleted(token_id="t-1", admin=False)

    audit.flush()

    ts = {"ts": "2025-06-15T15:06:40.500000+00:00"}
    attempt = ts | {"event": "auth_attempt", "peer": "192.0.2.7:1"}
    tunnel = {"tunnel_id": "u", "label": "20000"}
    assert lines(file) == [
        attempt | {"success": True, "token_id": "t-1"},
        attempt | {"success": True, "token_id": None},
        attempt | {"success": False},
        ts | tunnel | {"event": "tunnel_registered", "session_id": "s", "protocol": "tcp"},
        ts | tunnel | {"event": "tunnel_removed"},
        ts | {"event": "token_created", "token_id": "t-1", "label": "müller", "admin": True},
        ts | {"event": "token_deleted", "token_id": "t-1", "admin": False},
    ]
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_are_appended_and_a_renamed_file_is_begun_anew(audit: AuditLog, file: Path) -> None:
    for _ in range(2):
        audit.token_deleted(token_id="t", admin=True)
        audit.flush()
    file.rename(file.with_suffix(".1"))
    audit.token_deleted(token_id="t", admin=True)
    audit.flush()

    assert (len(lines(file.with_suffix(".1"))), len(lines(file))) == (2, 1)


def test_more_than_the_queue_takes_is_dropped_and_counted(audit: AuditLog, file: Path) -> None:
    for _ in range(MAX_QUEUED + 3):
        audit.token_deleted(token_id="t", admin=True)

    audit.flush()

    assert len(lines(file)) == MAX_QUEUED
    assert audit.dropped == 3


def test_a_disk_that_fails_costs_the_lines_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = AuditLog(tmp_path / "missing" / "audit", FakeClock())
    audit.token_deleted(token_id="t", admin=True)

    audit.flush()

    assert audit.dropped == 1
    assert "audit log cannot be written" in caplog.text


def test_without_a_file_nothing_is_kept() -> None:
    audit = AuditLog(None, FakeClock())
    audit.token_deleted(token_id="t", admin=True)

    audit.flush()

    assert audit.dropped == 0


async def test_the_writer_works_beside_the_event_loop(audit: AuditLog, file: Path) -> None:
    writers: set[int] = set()
    flush = audit.flush

    def note_thread() -> None:
        writers.add(threading.get_ident())
        flush()

    audit.flush = note_thread  # type: ignore[method-assign]  # to see where it runs
    async with TaskOwner() as tasks:
        tasks.start(audit.run(), "audit")
        await asyncio.sleep(0)
        for number in range(1, 3):
            audit.token_deleted(token_id="t", admin=True)
            await until(lambda: file.exists() and len(lines(file)) == number)  # noqa: B023

    assert threading.get_ident() not in writers
