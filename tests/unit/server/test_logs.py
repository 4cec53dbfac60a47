import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from moleport_server.config.settings import LogSettings
from moleport_server.logs import ACCESS_LOGGER, QUIET_LOGGERS, configure

NAMES = ("", ACCESS_LOGGER, *QUIET_LOGGERS)


@pytest.fixture(autouse=True)
def _restored_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(list(one.handlers), one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


def written(settings: LogSettings, *, name: str = "moleport_server.edge", **fields: Any) -> str:
    stream = io.StringIO()
    configure(settings, stream=stream)
    logging.getLogger(name).info("tunnel opened", extra=fields)
    return stream.getvalue()


def test_text_tells_utc_time_level_logger_event_and_fields() -> None:
    line = written(LogSettings(), tunnel="quick otter", port=20000)

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    moleport_server\.edge tunnel opened "
        r'tunnel="quick otter" port=20000\n',
        line,
    )


def test_json_is_one_object_with_the_same_fields() -> None:
    line = written(LogSettings(format="json"), tunnel="quick otter", port=20000)

    event = json.loads(line)
    assert line.count("\n") == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("timestamp"))
    assert event == {
        "level": "INFO",
        "logger": "moleport_server.edge",
        "message": "tunnel opened",
        "tunnel": "quick otter",
        "port": 20000,
    }


@pytest.mark.parametrize("value", ["a\nERROR forged", "\x1b[31mred", "a\u2028b", 'x" level="ERROR'])
def test_a_stranger_can_neither_forge_lines_nor_reach_the_terminal(value: str) -> None:
    text = written(LogSettings(), path=value)
    as_json = written(LogSettings(format="json"), path=value)

    assert text.removesuffix("\n").isprintable()
    assert json.loads(text.partition("path=")[2]) == value
    assert as_json.count("\n") == 1
    assert json.loads(as_json)["path"] == value


def test_a_message_from_a_library_is_escaped_as_well() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream=stream)

    logging.getLogger("library").warning("bad %s", "a\nb")

    assert stream.getvalue().endswith("library bad a\\nb\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_the_event(form: Any) -> None:
    stream = io.StringIO()
    configure(LogSettings(format=form), stream=stream)

    try:
        raise RuntimeError("bug")
    except RuntimeError:
        logging.getLogger("a").exception("task failed")

    text = stream.getvalue()
    if form == "json":
        assert "RuntimeError: bug" in json.loads(text)["exc_info"]
    else:
        first, *rest = text.splitlines()
        assert first.endswith("a task failed")
        assert rest[-1] == "    RuntimeError: bug"
        assert all(line.startswith("    ") for line in rest)


def test_the_level_is_a_setting() -> None:
    assert written(LogSettings(level="warning")) == ""


def test_the_access_log_is_off_until_asked_for() -> None:
    assert written(LogSettings(), name=ACCESS_LOGGER) == ""
    assert not logging.getLogger(ACCESS_LOGGER).isEnabledFor(logging.INFO)


def test_the_access_log_has_a_format_and_level_of_its_own() -> None:
    text = written(LogSettings(level="error", access="text"), name=ACCESS_LOGGER, status=200)
    as_json = written(LogSettings(level="error", access="json"), name=ACCESS_LOGGER, status=200)

    assert re.fullmatch(r"\S+Z tunnel opened status=200\n", text)
    assert json.loads(as_json)["status"] == 200


def test_configuring_again_does_not_double_the_lines() -> None:
    stream = io.StringIO()
    configure(LogSettings(), stream=stream)
    configure(LogSettings(), stream=stream)

    logging.getLogger("a").info("once")

    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize("name", QUIET_LOGGERS)
def test_chatter_of_libraries_is_not_written(name: str) -> None:
    assert written(LogSettings(level="debug"), name=name) == ""
