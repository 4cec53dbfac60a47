import io
import os
import threading

import pytest

from moleport_agent import line_sink
from moleport_agent.line_sink import LineSink
from moleport_agent.lines import plain_lost


def test_lines_are_written_in_order_before_the_context_ends() -> None:
    stream = io.StringIO()

    with LineSink(stream, plain_lost) as sink:
        for number in range(100):
            sink.put(str(number))

    assert stream.getvalue().split() == [str(number) for number in range(100)]


def test_a_reader_that_stops_costs_lines_and_never_the_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_sink, "MOST_LINES", 10)
    monkeypatch.setattr(line_sink, "CLOSE_SECONDS", 5.0)
    gate, entered = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            entered.set()
            assert gate.wait(5)
            return super().write(text)

    stream = Slow()
    with LineSink(stream, plain_lost) as sink:
        sink.put("first")
        assert entered.wait(5)
        for number in range(15):
            sink.put(str(number))
        gate.set()

    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["first", "(5 lines were not shown)", "0"]
    assert lines[-1] == "9"


def test_a_reader_that_left_is_forgotten() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    with os.fdopen(writing, "w") as stream:
        with LineSink(stream, plain_lost) as sink:
            sink.put("x")
            sink.put("y")
        # What is left in the buffer would break the file's own closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_closing_twice_is_harmless() -> None:
    with LineSink(io.StringIO(), plain_lost) as sink:
        sink.close()
