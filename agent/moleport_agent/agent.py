"""The agent: keeps a session with the server for as long as it is wanted.

Reconnects with jittered backoff that starts anew after each success, resumes its session where the
server still knows it, and asks for the same names where it does not. When the server drains, the next
session is dialled while the streams of the old one finish.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final

from moleport_agent.dialer import Dialer
from moleport_agent.events import (
    Connected,
    Connecting,
    Disconnected,
    Observer,
    TunnelOpened,
    TunnelRefused,
)
from moleport_agent.local import LocalService
from moleport_agent.name_memory import NameMemory
from moleport_agent.session import BindRefused, DriverSession, Ending
from moleport_agent.settings import AgentSettings, Secret, TunnelSettings
from moleport_agent.wishes import Wishes
from moleport_wire.aio.collection import settle
from moleport_wire.aio.sockets import ReadBuffer
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.aio.websocket import UpgradeRefused
from moleport_wire.errors import SessionRefused, TransportLost, WireError
from moleport_wire.hoody.frames import Code

logger = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_NOT_AUTHORISED: Final = 4
EXIT_REFUSED: Final = 5

EAGER_SECONDS: Final = 10.0
"""So long after a loss the agent tries several times a second: most losses are restarts."""
EAGER_DELAY_SECONDS: Final = 0.2
REBIND_SECONDS: Final = 5.0
"""Pause before a tunnel that was refused for now is asked for again."""
RETIRE_SECONDS: Final = 120.0
"""The longest that a draining session may keep its streams."""

_CONNECT_ERRORS = (OSError, TimeoutError, WireError)


async def run_agent(settings: AgentSettings, observe: Observer, *, stop: asyncio.Event) -> int:
    """Run until `stop` is set, or until the server refused for good.

    Returns:
        0 after a clean end, 4 when the token was refused at the first login, 5 when every tunnel was
        refused for good.
    """
    async with TaskOwner() as tasks:
        agent = _Agent(settings, observe, tasks)
        settle()
        return await agent.run(stop)


class Backoff:
    """Delays between attempts: none at first, eager for a while, then doubling with jitter.

    Args:
        first_seconds: the first delay of the doubling part.
        limit_seconds: the longest delay.
        jitter: a random number between 0 and 1.
    """

    def __init__(
        self, first_seconds: float, limit_seconds: float, jitter: Callable[[], float]
    ) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Start anew, after a success."""
        self.attempt = 0
        self.pause = 0.0
        self._waited = 0.0
        self._delay = self._first

    def refused(self) -> None:
        """Stop being eager: who was told no is not let in by asking again at once."""
        if self._waited < EAGER_SECONDS:
            self._waited = EAGER_SECONDS
            self.pause = self._plan()

    def next_delay(self) -> float:
        """Return how long to wait before the next attempt, which is `pause` until then."""
        delay = self.pause
        self.attempt += 1
        self._waited += delay
        self.pause = self._plan()
        return delay

    def _plan(self) -> float:
        if self._waited < EAGER_SECONDS:
            return min(EAGER_DELAY_SECONDS, self._limit) * (0.5 + self._jitter() / 2)
        delay = self._delay * (0.5 + self._jitter() / 2)
        self._delay = min(self._delay * 2, self._limit)
        return delay


class _Agent:
    def __init__(self, settings: AgentSettings, observe: Observer, tasks: TaskOwner) -> None:
        self._settings = settings
        self._observe = observe
        self._tasks = tasks
        self._dialer = Dialer(settings.server)
        self._tunnels = {tunnel.name: tunnel for tunnel in settings.tunnels}
        buffer = ReadBuffer()
        self._services = {
            tunnel.name: LocalService(tunnel, observe, tasks, buffer) for tunnel in settings.tunnels
        }
        self._wishes = Wishes(settings.server.url, NameMemory(settings.memory_file))
        self._refused: set[str] = set()
        self._session_id: str | None = None
        self._binds: dict[int, str] = {}
        self._was_connected = False

    async def run(self, stop: asyncio.Event) -> int:
        backoff = Backoff(
            self._settings.backoff_first_seconds,
            self._settings.backoff_limit_seconds,
            random.random,
        )
        while not stop.is_set():
            if await self._is_stopped_within(stop, backoff.next_delay()):
                break
            self._observe(Connecting(self._settings.server.url, backoff.attempt))
            session = DriverSession(self._dialer, self._services, self._observe)
            try:
                token = self._settings.server.read_token()
                opened = await self._unless_stopped(stop, self._open(session, token))
                if not opened:
                    await session.aclose("the agent ends")
                    break
                backoff.reset()
                ending = await self._serve(session, token, stop)
            except BaseExceptionGroup as group:
                await session.aclose()
                raise group.exceptions[0] from group
            except _CONNECT_ERRORS as error:
                await session.aclose()
                code = self._exit_code(error)
                if code is not None:
                    self._observe(Disconnected(_explain(error), None))
                    return code
                if _is_refusal(error):
                    backoff.refused()
                self._observe(Disconnected(_explain(error), backoff.pause))
                continue
            except asyncio.CancelledError:
                await session.aclose("the agent ends")
                raise
            if ending is None:
                await session.aclose("the agent ends")
                break
            if ending.is_draining:
                self._tasks.start(self._retire(session), "retire a draining session")
            else:
                await session.aclose()
            if self._refused and len(self._refused) == len(self._tunnels):
                return EXIT_REFUSED
            if ending.code not in (None, Code.NONE, Code.IDLE_TIMEOUT):
                self._session_id = None
            if ending.code == Code.AUTH:
                backoff.refused()
            self._observe(Disconnected(ending.reason, backoff.pause))
        return EXIT_OK

    def _exit_code(self, error: BaseException) -> int | None:
        """Give up only at the first login: later, a refused token may be about to rotate."""
        if self._was_connected or not _is_refusal(error):
            return None
        return EXIT_NOT_AUTHORISED

    async def _open(self, session: DriverSession, token: Secret) -> None:
        await session.open(
            token,
            agent=f"moleport {_version()} ({platform.system()})",
            connections=self._settings.connections,
            reports=self._settings.report_requests,
            resume=self._session_id,
            binds=self._binds,
        )
        hello = session.hello
        assert hello is not None  # noqa: S101 - an open session was greeted
        self._was_connected = True
        self._session_id = hello.session_id
        self._observe(Connected(hello.session_id, self._settings.server.url, hello.resumed))
        if hello.resumed:
            for bound in hello.resumed_binds:
                name = session.binds.get(bound.bind_id)
                if name is not None:
                    self._note_opened(name, bound.public_url, bound.container_port)
            alive = {bound.bind_id for bound in hello.resumed_binds}
            for bind_id in [b for b in session.binds if b not in alive]:
                del session.binds[bind_id]

    async def _serve(
        self, session: DriverSession, token: Secret, stop: asyncio.Event
    ) -> Ending | None:
        """Bind what is not bound and wait for the end; None when we were asked to stop."""
        async with TaskOwner() as duties:
            missing = [t for t in self._tunnels.values() if t.name not in session.binds.values()]
            for tunnel in missing:
                duties.start(self._keep_bound(session, tunnel), f"bind {tunnel.name}")
            duties.start(self._watch_token(session, token), "watch the token file")
            stopping = asyncio.get_running_loop().create_task(stop.wait(), name="stop")
            ending = asyncio.get_running_loop().create_task(session.wait_ended(), name="ended")
            try:
                await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return None
                return ending.result()
            finally:
                stopping.cancel()
                ending.cancel()
                self._binds = dict(session.binds)

    async def _keep_bound(self, session: DriverSession, tunnel: TunnelSettings) -> None:
        """Ask for one tunnel until it is granted or refused for good."""
        while True:
            try:
                answer = await session.bind(tunnel, await self._wishes.request(tunnel))
            except BindRefused as refusal:
                self._observe(
                    TunnelRefused(tunnel.name, refusal.code, refusal.message, refusal.is_final)
                )
                if refusal.is_final:
                    self._refused.add(tunnel.name)
                    if len(self._refused) == len(self._tunnels):
                        await session.aclose("every tunnel was refused")
                    return
            except TransportLost:
                return
            except TimeoutError:
                logger.warning("no answer to BIND", extra={"tunnel": tunnel.name})
            else:
                self._refused.discard(tunnel.name)
                self._note_opened(tunnel.name, answer.public_url, answer.container_port)
                return
            await asyncio.sleep(REBIND_SECONDS * (0.5 + random.random() / 2))  # noqa: S311 - jitter

    def _note_opened(self, name: str, public_url: str | None, container_port: int) -> None:
        tunnel = self._tunnels[name]
        self._wishes.note_given(tunnel, public_url or "", container_port)
        port = None if tunnel.container is None else container_port
        self._observe(TunnelOpened(name, public_url or "", tunnel.target.text, port))

    async def _watch_token(self, session: DriverSession, token: Secret) -> None:
        """Prove a rotated token on the live session."""
        while True:
            await asyncio.sleep(self._settings.token_poll_seconds)
            try:
                fresh = self._settings.server.read_token()
            except OSError as error:
                logger.warning("cannot read the token", extra={"error": error.strerror})
                continue
            if fresh == token:
                continue
            try:
                await session.reauthenticate(fresh)
            except TransportLost:
                return
            except (SessionRefused, TimeoutError) as error:
                logger.warning("the new token was not accepted", extra={"error": str(error)})
                continue
            token = fresh
            logger.info("the new token was accepted")

    async def _retire(self, session: DriverSession) -> None:
        """Let a draining session finish its streams."""
        try:
            async with asyncio.timeout(RETIRE_SECONDS):
                await session.wait_closed()
        except TimeoutError:
            pass
        finally:
            await session.aclose("drained")

    async def _is_stopped_within(self, stop: asyncio.Event, delay: float) -> bool:
        if delay <= 0:
            return stop.is_set()
        try:
            async with asyncio.timeout(delay):
                await stop.wait()
        except TimeoutError:
            return False
        return True

    async def _unless_stopped(self, stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work`, or cancel it when asked to stop; True when it was done."""
        loop = asyncio.get_running_loop()
        working = loop.create_task(work, name="open a session")
        stopping = loop.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return True
            return False
        finally:
            stopping.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait({working})


def _is_refusal(error: BaseException) -> bool:
    """Whether the server answered, and does not know the token."""
    if isinstance(error, SessionRefused):
        return error.code == Code.AUTH
    return isinstance(error, UpgradeRefused) and error.status in (401, 403)


def _explain(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate is not trusted: {error.verify_message}; "
            "`moleport doctor` tells what to do"
        )
    if isinstance(error, TimeoutError):
        return "no answer from the server"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - only when a session opens

    return version("moleport")
