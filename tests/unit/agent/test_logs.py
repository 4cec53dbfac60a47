import logging
from collections.abc import Iterator

import pytest

from moleport_agent import logs


@pytest.fixture(autouse=True)
def _restored_loggers() -> Iterator[None]:
    yield
    for name in logs.LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_lines_go_to_whoever_shows_them() -> None:
    lines: list[str] = []
    logs.configure(logging.WARNING, lines.append)

    logging.getLogger("moleport_agent.session").warning("peer %s", "misbehaved")
    logging.getLogger("moleport_agent.session").debug("a detail")
    logging.getLogger("another.package").warning("nothing of ours")

    assert lines == ["peer misbehaved"]


def test_without_a_view_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logging.DEBUG)

    logging.getLogger("moleport_wire.mux").debug("a frame")

    assert "DEBUG moleport_wire.mux: a frame" in capsys.readouterr().err


def test_configuring_twice_does_not_double_the_lines() -> None:
    lines: list[str] = []
    logs.configure(logging.INFO, lines.append)
    logs.configure(logging.INFO, lines.append)

    logging.getLogger("moleport_agent").info("once")

    assert lines == ["once"]
