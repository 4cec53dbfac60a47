"""kopf as an informer: it lists, watches and reconnects; what it sees goes to the operator's own loop.

kopf cancels everything in its loop when it ends, so it has a thread and a loop of its own. Only event
handlers are registered: no finalizers, annotations, timers or events of kopf's making appear anywhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import kopf

from moleport_operator.errors import OperatorError
from moleport_operator.kube import PAGE, ObserveCall, authorization, login, make_session
from moleport_operator.resources import GROUP, VERSION
from moleport_operator.watch_life import WatchLife

STOP_SECONDS: Final = 10.0
"""kopf's own goodbye takes less than 5 s."""
LOGIN_LIFETIME: Final = timedelta(minutes=10)
"""Tokens of service accounts are replaced long before they end; so do we read them again."""

IDENTITY: Final[Any] = "moleport-operator"
"""What kopf calls us among its peers, of which there are none. It would ask for the name of the user, and a
user of a container is often a number without one."""

Heard = Callable[[str, str | None, Mapping[str, Any]], None]
"""Called on the operator's loop with the plural, the type of event (None: listed), and the body."""


class InformerStopped(OperatorError):
    """kopf ended by itself; nothing would be watched any more."""


@asynccontextmanager
async def run_informer(
    plurals: tuple[str, ...],
    *,
    namespaces: tuple[str, ...],
    watches_namespaces: bool,
    heard: Heard,
    life: WatchLife,
    observe: ObserveCall,
) -> AsyncIterator[asyncio.Future[None]]:
    """Watch until the context ends.

    Args:
        plurals: kinds of our group.
        namespaces: where to watch; empty: everywhere.
        watches_namespaces: whether to watch namespaces themselves, for their labels.
        heard: told about every object.
        life: told about every call of kopf's and every byte that comes, on kopf's thread.
        observe: told about every call of kopf's, on kopf's thread.

    Yields:
        A future that fails with `InformerStopped` when kopf ends by itself.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    stop = threading.Event()
    kinds = [(GROUP, VERSION, plural) for plural in plurals]
    if watches_namespaces:
        kinds.append(("", "v1", "namespaces"))
    life.begin(plural for _, _, plural in kinds)
    registry = _registry(kinds, _thread_safe(loop, heard), life, observe)

    def work() -> None:
        error: BaseException | None = None
        try:
            kopf.run(
                registry=registry,
                settings=_settings(),
                standalone=True,
                identity=IDENTITY,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
        except BaseException as failure:  # noqa: BLE001 - the thread ends; its loop's owner has to hear why
            error = failure
        if not stop.is_set():
            loop.call_soon_threadsafe(_fail, ended, error)

    thread = threading.Thread(target=work, name="kopf", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, STOP_SECONDS)
        if not ended.done():
            ended.cancel()


def _thread_safe(loop: asyncio.AbstractEventLoop, heard: Heard) -> Heard:
    def tell(plural: str, kind: str | None, body: Mapping[str, Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(heard, plural, kind, body)

    return tell


def _fail(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if not ended.done():
        ended.set_exception(InformerStopped(f"kopf ended: {error!r}"))


def _registry(
    kinds: list[tuple[str, str, str]], tell: Heard, life: WatchLife, observe: ObserveCall
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    def handler_of(plural: str) -> Callable[..., Coroutine[Any, Any, None]]:
        # A coroutine, because kopf runs plain functions in threads, where order would be lost.
        async def handler(event: Mapping[str, Any], **_: Any) -> None:
            tell(plural, event["type"], event["object"])

        return handler

    async def log_in(**_: Any) -> kopf.AiohttpSession:
        # A session of our making: it is bounded, counted, and tells when bytes come.
        info = login()
        session = make_session(
            info, observe, began=life.tried, response_class=_listening(life.heard)
        )
        session.headers.update(authorization(info))
        return kopf.AiohttpSession(
            server=info.server,
            default_namespace=info.default_namespace,
            aiohttp_session=session,
            expiration=datetime.now(UTC) + LOGIN_LIFETIME,
        )

    for group, version, plural in kinds:
        kopf.on.event(group, version, plural, registry=registry)(handler_of(plural))
    kopf.on.login(registry=registry)(log_in)
    return registry


def _listening(heard: Callable[[str], None]) -> type[aiohttp.ClientResponse]:
    """Return a class of responses that tell their path whenever something comes."""

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.status < 300:
                heard(self.url.path)
                self.content = _Stream(self.content, lambda: heard(self.url.path))  # type: ignore[assignment]  # passes everything on
            return self

    return Response


class _Stream:
    """A body of which kopf reads chunks; bookmarks are among them, which kopf tells nobody."""

    def __init__(self, stream: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._stream = stream
        self._heard = heard

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for chunk in self._stream.iter_chunked(size):
            self._heard()
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.finalizer = f"{GROUP}/not-used"
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 600
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = 1.0
    settings.execution.max_workers = 2
    return settings
