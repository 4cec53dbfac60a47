"""The route table's vocabulary: one `Route` is a call of the API, for the router and for people.

Each resource family returns its routes; `dispatch` serves them and `openapi` describes them, so the
document cannot say anything else than what the server does. To add a family: write a module with a
class that has `routes()`, and name it in `application`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web

from moleport_server.api.problems import JSON
from moleport_server.domain.token import Principal
from moleport_server.errors import Unauthenticated

DEADLINE_SECONDS: Final = 30.0
"""Of an ordinary call: the store answers in milliseconds or something is broken."""

Query = TypeVar("Query")
Body = TypeVar("Body")


class Access(Enum):
    """Who may call."""

    PUBLIC = "public"
    """Anybody."""
    TOKEN = "token"  # noqa: S105 - the word, not a secret
    """Whoever shows a valid token; sees what it owns."""
    GATEWAY = "gateway"
    """Like TOKEN; callers from a trusted address need none and count as the admin."""
    ADMIN = "admin"
    """The admin only."""


EVENT_STREAM: Final = "text/event-stream"
"""The media type of answers that go on for as long as somebody watches."""


class NoQuery(msgspec.Struct, frozen=True):
    """The query of calls that take none; whatever comes is ignored."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Query, Body]):
    """One request, authenticated and decoded."""

    request: web.Request
    caller: Principal | None
    query: Query
    body: Body

    @property
    def principal(self) -> Principal:
        """Who calls.

        Raises:
            Unauthenticated: the route is public.
        """
        if self.caller is None:
            raise Unauthenticated("missing token", missing=True)
        return self.caller

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters of the path, percent-decoded."""
        return self.request.match_info


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that needs headers beside its body."""

    answer: Any
    headers: Mapping[str, str]
    status: int | None = None
    """None: that of the route."""


Handler = Callable[[Call[Any, Any]], Awaitable[Any]]
"""Returns the answer to encode, a `Reply`, or a response of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One call: how it is served and how it is described."""

    method: str
    path: str
    """With `{name}` for parameters."""
    operation: str
    """The operationId: stable, generated clients name their functions after it."""
    summary: str
    handler: Handler
    family: str
    """The tag under which the document lists it."""
    access: Access = Access.TOKEN
    query: type[Any] = NoQuery
    query_error: str | None = None
    """What to answer to a query that does not fit; None: what the decoder says."""
    body: type[Any] | None = None
    status: int = 200
    creates: bool = False
    """Whether it answers 201 when there was no such object before."""
    answer: Any = None
    """Type of the answer; None: no body, or a text of `media_type`."""
    media_type: str = JSON
    errors: tuple[tuple[int, str], ...] = ()
    """Statuses of its own with their texts; what all calls share is added by `openapi`."""
    is_extension: bool = False
    """Not in the seed API: errors carry a code."""
    deadline_seconds: float | None = DEADLINE_SECONDS
    """None: the handler keeps its own."""

    @property
    def is_stream(self) -> bool:
        """Whether its answers go on for as long as somebody watches."""
        return self.media_type == EVENT_STREAM
