"""Watch the server's live events, and take the stream up again where it was lost.

The server numbers its events and keeps the last thousand, so a watcher that names the last id it
saw misses nothing over a short drop. Each wait has a deadline: silence, the pause before an
attempt, and the time after which a lost stream is an error.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from moleport_agent.answers import ServerEvent
from moleport_agent.errors import BadAnswer, ConnectError
from moleport_agent.event_stream import EventStreamParser
from moleport_agent.http_adapter import CONNECT_SECONDS, check_status, read_bounded, translate

SILENCE_SECONDS: Final = 45.0
"""The server sends a comment every 15 s; after three missed ones the stream is dead."""
BACKOFF_FIRST_SECONDS: Final = 0.5
BACKOFF_LIMIT_SECONDS: Final = 10.0
GIVE_UP_SECONDS: Final = 300.0
"""A stream that could not be taken up again for so long ends with an error."""


class EventStream:
    """Iterates over the live events and takes the stream up again where it was lost."""

    def __init__(
        self,
        http: httpx.Client,
        params: dict[str, str],
        *,
        on_drop: Callable[[str, float], None] | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._http = http
        self._params = params
        self._on_drop = on_drop
        self._sleep = sleep
        self._last_id: str | None = None
        self._response: httpx.Response | None = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; idempotent."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def __iter__(self) -> Iterator[ServerEvent]:
        """Yield events for ever.

        Raises:
            ConnectError: the stream was lost and did not come back in `GIVE_UP_SECONDS`.
            Rejected: the token is not accepted any more.
        """
        while True:
            reason = "the server ended the stream"
            try:
                yield from self._read()
            except httpx.HTTPError as error:
                reason = str(translate(error, str(self._http.base_url)))
            self.close()
            self._reopen(reason)

    def _read(self) -> Iterator[ServerEvent]:
        parser = EventStreamParser()
        if self._response is None:
            return
        for chunk in self._response.iter_bytes():
            for raw in parser.feed(chunk):
                if raw.comment is not None:
                    continue
                self._last_id = raw.id or self._last_id
                try:
                    fields = msgspec.json.decode(raw.data, type=dict[str, Any])
                except msgspec.MsgspecError as error:
                    raise BadAnswer(f"an event of the server is no JSON object: {error}") from error
                yield ServerEvent(id=raw.id, kind=raw.kind, fields=fields)

    def _reopen(self, reason: str) -> None:
        waited, delay = 0.0, BACKOFF_FIRST_SECONDS
        while True:
            pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing
            if self._on_drop is not None:
                self._on_drop(reason, pause)
            self._sleep(pause)
            waited += pause
            try:
                self._response = self._open()
            except ConnectError as error:
                if waited > GIVE_UP_SECONDS:
                    raise
                reason = str(error)
            else:
                return
            delay = min(delay * 2, BACKOFF_LIMIT_SECONDS)

    def _open(self) -> httpx.Response:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        request = self._http.build_request(
            "GET",
            "/api/events",
            params=self._params,
            headers=headers,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        )
        try:
            response = self._http.send(request, stream=True)
            if response.status_code != 200:
                with contextlib.closing(response):
                    content = read_bounded(response)
                check_status(response, content)
        except httpx.HTTPError as error:
            raise translate(error, str(self._http.base_url)) from error
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            response.close()
            raise BadAnswer(f"/api/events answered {kind or 'no content type'}, not events")
        return response
