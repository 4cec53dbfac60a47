"""Deadlines for waits that a client cannot end."""

from typing import Unpack

from helpers.pair import Reader
from helpers.yamux_pair import Limits, Side
from moleport_server.agents.rustunnel.stalls import Stalls
from moleport_wire.hoody.frames import Code
from moleport_wire.yamux.frames import ACK, DATA, FIN, INITIAL_WINDOW_BYTES, PING, serialize


def make(**limits: Unpack[Limits]) -> tuple[Side, Stalls]:
    side = Side(limits=limits)
    return side, Stalls(side.mux, stream_seconds=30.0, credit_seconds=10.0, answer_seconds=40.0)


def codes(reader: Reader) -> list[int]:
    return [code for code, _ in reader.resets]


def test_a_stream_waits_for_a_place_and_not_for_ever() -> None:
    side, stalls = make(max_unacknowledged=1)
    side.open()
    _, waiting = side.open()

    stalls.sweep(0.0)
    stalls.sweep(29.0)
    assert codes(waiting) == []
    stalls.sweep(30.0)

    assert codes(waiting) == [Code.CALM_DOWN]
    assert not side.mux.waiting_streams


def test_a_client_that_does_not_say_what_it_let_go_of_is_deaf_after_a_while() -> None:
    side, stalls = make(max_streams=4)
    for _ in range(4):
        side.open()[0].reset(Code.CANCEL)

    stalls.sweep(0.0)
    stalls.sweep(39.0)
    assert not stalls.is_deaf
    stalls.sweep(40.0)
    assert stalls.is_deaf

    # It answers after all, and is asked again about the others.
    side.mux.receive(serialize(PING, ACK, 0, 1))
    side.open()[0].reset(Code.CANCEL)
    stalls.sweep(41.0)
    assert not stalls.is_deaf


def test_a_stream_that_got_its_place_is_left_alone() -> None:
    side, stalls = make(max_unacknowledged=1)
    first, _ = side.open()
    _, second = side.open()
    stalls.sweep(0.0)
    first.reset(Code.CANCEL)

    stalls.sweep(60.0)

    assert codes(second) == []


def test_bytes_for_a_client_that_ended_its_direction_wait_for_credit_and_not_for_ever() -> None:
    side, stalls = make()
    stream, reader = side.open()
    stream.write(b"x" * (INITIAL_WINDOW_BYTES + 1))
    side.take()
    side.mux.receive(serialize(DATA, FIN, stream.id))
    side.take()

    stalls.sweep(0.0)
    stalls.sweep(9.0)
    assert codes(reader) == []
    stalls.sweep(10.0)

    assert codes(reader) == [Code.CANCEL]
    assert side.mux.open_streams == 0


def test_bytes_for_a_slow_client_wait_as_long_as_it_takes() -> None:
    side, stalls = make()
    stream, reader = side.open()
    stream.write(b"x" * (INITIAL_WINDOW_BYTES + 1))
    side.take()
    side.take()

    for now in (0.0, 100.0, 1000.0):
        stalls.sweep(now)

    assert codes(reader) == []
    assert stream.is_open
