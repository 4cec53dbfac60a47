"""Accepting without a task per connection."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from helpers.waiting import until
from moleport_server.config.values import Endpoint
from moleport_server.edge import accepting
from moleport_server.edge.accepting import AT_ONCE, Acceptor
from moleport_server.listening import bind_listener

SECONDS = 20.0


class Echo(asyncio.Protocol):
    """Sends back what it reads."""

    def __init__(self, made: "list[Echo]") -> None:
        made.append(self)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Exhausted:
    """A listening socket for which there are no descriptors at first."""

    def __init__(self, sock: socket.socket, times: int, code: int) -> None:
        self._sock = sock
        self.left = times
        self._code = code

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(self._code, "no more")
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@asynccontextmanager
async def accepting_with(
    wrap: Callable[[socket.socket], Any] = lambda sock: sock,
) -> AsyncIterator[tuple[Acceptor, list[Echo]]]:
    made: list[Echo] = []
    acceptor = Acceptor(wrap(bind_listener(Endpoint("127.0.0.1", 0))), lambda: Echo(made))
    try:
        yield acceptor, made
    finally:
        acceptor.close()
        for echo in made:
            echo.transport.abort()
        await until(lambda: all(echo.transport.is_closing() for echo in made))


async def ask(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return writer


async def test_more_come_at_once_than_one_turn_takes() -> None:
    async with accepting_with() as (acceptor, made), asyncio.timeout(SECONDS):
        count = 2 * AT_ONCE + 1
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(acceptor.port)) for _ in range(count)]

        assert len(made) == count
        for task in asking:
            task.result().close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_without_descriptors_it_pauses_and_those_who_came_are_served_later(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.02)
    socks: list[Exhausted] = []

    def wrap(sock: socket.socket) -> Exhausted:
        socks.append(Exhausted(sock, 3, code))
        return socks[0]

    async with accepting_with(wrap) as (acceptor, made), asyncio.timeout(SECONDS):
        (await ask(acceptor.port)).close()

        assert len(made) == 1
        assert socks[0].left == 0


async def test_one_that_left_before_its_turn_does_not_stop_the_others() -> None:
    async with (
        accepting_with(lambda sock: Exhausted(sock, 2, errno.ECONNABORTED)) as (acceptor, made),
        asyncio.timeout(SECONDS),
    ):
        (await ask(acceptor.port)).close()

        assert len(made) == 1


async def test_a_closed_one_refuses_and_leaves_open_connections_alone() -> None:
    async with accepting_with() as (acceptor, made), asyncio.timeout(SECONDS):
        port = acceptor.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: bool(made))

        acceptor.close()
        acceptor.close()

        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        writer.close()


async def test_it_can_be_closed_while_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    socks: list[Exhausted] = []

    def wrap(sock: socket.socket) -> Exhausted:
        socks.append(Exhausted(sock, 1, errno.EMFILE))
        return socks[0]

    async with accepting_with(wrap) as (acceptor, made), asyncio.timeout(SECONDS):
        _, writer = await asyncio.open_connection("127.0.0.1", acceptor.port)
        await until(lambda: not socks[0].left)

        acceptor.close()
        writer.close()

    assert not made
