"""The REST API as one aiohttp application, for the control and the api listener.

Put together here and nowhere else: families of calls, the table that serves and describes them, and
what every answer carries. Whoever serves the application calls `shutdown` on it when the server ends,
as aiohttp's runners do; open event streams end with that.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from uuid import UUID, uuid4

from aiohttp import web
from aiohttp.typedefs import Handler as WebHandler

from moleport_server.access.audit import AuditLog
from moleport_server.api.authentication import Gate
from moleport_server.api.dispatch import LARGEST_BODY_BYTES, Observer, bind
from moleport_server.api.docs import DocsRoutes
from moleport_server.api.events import EventRoutes, EventStreams
from moleport_server.api.history import HistoryRoutes
from moleport_server.api.hoody import HoodyRoutes
from moleport_server.api.policies import PolicyRoutes
from moleport_server.api.ports import Authenticator, HoodyFacts, Registry, ServerFacts, StateReader
from moleport_server.api.problems import error_response
from moleport_server.api.requests import RequestRoutes
from moleport_server.api.routing import Route
from moleport_server.api.server import ServerRoutes
from moleport_server.api.sessions import SessionRoutes
from moleport_server.api.status import StatusRoutes
from moleport_server.api.token_objects import TokenObjectRoutes, TokenObjects
from moleport_server.api.tokens import TokenRoutes
from moleport_server.api.tunnels import TunnelRoutes
from moleport_server.capture.replay import ReplayPort
from moleport_server.capture.ring import CaptureLog
from moleport_server.clock import Clock
from moleport_server.domain.tunnel import IPNetwork
from moleport_server.registry.enforcement import Announced
from moleport_server.store.base import CaptureStore

ROUTES: Final = web.AppKey("routes", tuple[Route, ...])
"""The table of an application, for tests and for generated references."""
EVENT_STREAMS: Final = web.AppKey("event_streams", EventStreams)
"""Ends the event streams; for a server that drains before it shuts the application down."""


def make_app(
    *,
    registry: Registry,
    authenticator: Authenticator,
    enforcement: Announced,
    store: StateReader,
    captures: CaptureLog,
    capture_store: CaptureStore,
    replay: ReplayPort,
    clock: Clock,
    facts: ServerFacts,
    hoody: HoodyFacts,
    trusted: tuple[IPNetwork, ...] = (),
    audit: AuditLog,
    cors_origins: Collection[str] = (),
    tokens_are_admin: bool = False,
    observe: Observer | None = None,
    new_id: Callable[[], UUID] = uuid4,
) -> web.Application:
    """Make the application.

    Args:
        registry: live sessions and tunnels.
        authenticator: verifies tokens.
        enforcement: lets changes of tokens and policies hold for what is live.
        store: tokens, policies and history.
        captures: captured requests in memory.
        capture_store: those behind them.
        replay: sends a captured request again.
        clock: for records.
        facts: what `GET /api/server` and the region tell.
        hoody: what the hoody-tunnel family tells.
        trusted: addresses that need no token for calls of that family.
        audit: is told of tokens that are made and deleted.
        cors_origins: origins of web pages that may call the API; none by default.
        tokens_are_admin: whether each token may do what the admin may, as in the seed.
        observe: is told of each call, for metrics.
        new_id: makes random UUIDs, of tokens and for their secrets.
    """
    gate = Gate(authenticator, tokens_are_admin=tokens_are_admin, trusted=trusted)
    streams = EventStreams()
    region_id = facts.region.id
    docs = DocsRoutes(version=facts.version)
    objects = TokenObjects(store=store, registry=registry, clock=clock, domains=facts.domains)
    families = (
        StatusRoutes(registry=registry, facts=facts),
        TunnelRoutes(registry=registry, region_id=region_id),
        RequestRoutes(registry=registry, captures=captures, store=capture_store, replay=replay),
        TokenRoutes(
            store=store,
            registry=registry,
            authenticator=authenticator,
            objects=objects,
            clock=clock,
            audit=audit,
            new_id=new_id,
        ),
        TokenObjectRoutes(
            store=store, objects=objects, enforcement=enforcement, clock=clock, audit=audit
        ),
        PolicyRoutes(store=store, enforcement=enforcement),
        HistoryRoutes(store=store, clock=clock, region_id=region_id),
        SessionRoutes(registry=registry),
        HoodyRoutes(registry=registry, facts=hoody),
        EventRoutes(
            events=registry.events, gate=gate, streams=streams, run_id=secrets.token_hex(4)
        ),
        ServerRoutes(facts=facts),
        docs,
    )
    routes = tuple(route for family in families for route in family.routes())
    docs.describe(routes)

    app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=[_answer_in_json])
    app[ROUTES] = routes
    app[EVENT_STREAMS] = streams
    for route in routes:
        handler = bind(route, gate, observe or _ignore)
        # By default aiohttp takes a parameter with a brace for an unknown path.
        path = route.path.replace("}", ":[^/]+}")
        app.router.add_route(route.method, path, handler)
        if route.method == "GET":
            app.router.add_route("HEAD", path, handler)
    app.on_response_prepare.append(_add_headers(facts.instance_id, frozenset(cors_origins)))
    app.on_shutdown.append(_end_streams)
    return app


@web.middleware
async def _answer_in_json(request: web.Request, handler: WebHandler) -> web.StreamResponse:
    if request.method == "OPTIONS":
        # A preflight carries no token and says nothing; `_add_headers` says who may go on.
        return web.Response()
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        return error_response(405, "method not allowed", headers={"Allow": error.headers["Allow"]})
    except web.HTTPNotFound:
        return error_response(404, "not found")


def _add_headers(
    instance_id: str, origins: frozenset[str]
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def add(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["X-Moleport-Instance"] = instance_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Cache-Control"] = "no-store"
        if not origins:
            return
        headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin not in origins:
            return
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = "ETag, Link, Retry-After, X-Moleport-Instance"
        if request.method == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, DELETE"
            headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID"
            )

    return add


async def _end_streams(app: web.Application) -> None:
    app[EVENT_STREAMS].close()


def _ignore(_route: Route, _status: int, _seconds: float) -> None:
    """Observe nothing."""
