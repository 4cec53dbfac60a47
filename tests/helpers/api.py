"""The REST API on loopback over a real store, authenticator and event log, and a small registry."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from helpers.captures import make_capture, make_tunnel
from helpers.clock import FakeClock
from moleport_server.access.audit import AuditLog
from moleport_server.access.authentication import Authenticator
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.api.application import make_app
from moleport_server.api.ports import HoodyFacts, Region, ServerFacts, Vitals
from moleport_server.capture.record import Capture, CaptureIds
from moleport_server.capture.ring import CaptureLog
from moleport_server.domain.token import ADMIN, Credential, Principal, Token
from moleport_server.registry.events import EventLog
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.upstream import ByteStream, WaitingStream
from moleport_server.store.base import StoredSession
from moleport_server.store.memory import MemoryCaptureStore, MemoryStateStore
from moleport_wire.hoody.streams import StreamReceiver

ADMIN_SECRET = "admin-secret-for-tests"
INSTANCE = "0e9bd6e5-6f3c-4b0c-8a54-0d6b9b7f2c11"
FACTS = ServerFacts(
    version="1.2.3",
    instance_id=INSTANCE,
    domains=("tunnels.example.com",),
    http_port=80,
    https_port=443,
    control_port=4040,
    tcp_host="tunnels.example.com",
    tcp_ports=(20000, 20099),
    region=Region(id="eu", name="Europe", location="Vienna", host="control.example.com"),
    limits={"tunnels_per_session": 16, "lease_seconds": 60, "requests_per_second": None},
)


class IdleUpstream:
    """An agent with two open streams, which nothing is asked of."""

    open_streams = 2
    is_crowded = False
    buffered_bytes = 0

    def take_waiting(self, tunnel: Tunnel) -> WaitingStream | None:
        raise NotImplementedError

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ByteStream:
        raise NotImplementedError

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        raise NotImplementedError

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        raise NotImplementedError

    def drain(self, reason: str, deadline_seconds: float) -> None:
        raise NotImplementedError

    def end(self, code: int, reason: str, grace_seconds: float = 0.0) -> None:
        raise NotImplementedError

    async def is_alive(self, timeout_seconds: float) -> bool:
        raise NotImplementedError


class ListRegistry:
    """Sessions and tunnels as a test puts them there; closing takes them away and notes it."""

    def __init__(self, clock: FakeClock) -> None:
        self.sessions: dict[str, Session] = {}
        self.tunnels: dict[UUID, Tunnel] = {}
        self.parked: dict[str, StoredSession] = {}
        self.events = EventLog(clock.now)
        self.closed: list[tuple[str, str, str | float]] = []

    async def close_tunnel(self, tunnel: Tunnel, reason: str) -> None:
        del self.tunnels[tunnel.id]
        self.closed.append(("tunnel", str(tunnel.id), reason))

    async def close_session(
        self,
        session: Session,
        reason: str,
        *,
        drain_seconds: float = 0.0,
        grace_seconds: float = 0.0,
    ) -> None:
        self.closed.append(("session", session.id, drain_seconds + grace_seconds))

    def release_parked(self, session_id: str, reason: str) -> bool:
        self.closed.append(("parked", session_id, reason))
        return self.parked.pop(session_id, None) is not None

    async def close_token(self, token_id: str, reason: str) -> None:
        self.closed.append(("token", token_id, reason))


class Announcements:
    """Notes what the API announces, and lets the authenticator forget as the real one does."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self.made: list[tuple[str, ...]] = []

    async def token_changed(self, token_id: str) -> None:
        self._authenticator.forget(token_id)
        self.made.append(("token", token_id))

    async def slot_replaced(self, token_id: str, revision: int) -> None:
        self.made.append(("slot", token_id, str(revision)))

    async def policy_changed(self, policy_id: str) -> None:
        self._authenticator.forget_policy(policy_id)
        self.made.append(("policy", policy_id))


class Replayer:
    """Sends nothing: answers with the next failure, or with a new capture."""

    def __init__(self, ids: CaptureIds) -> None:
        self._ids = ids
        self.failures: list[Exception] = []
        self.sent: list[tuple[Tunnel, Capture]] = []

    async def send(self, tunnel: Tunnel, capture: Capture) -> Capture:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((tunnel, capture))
        return make_capture(self._ids, capture.target, request_body=capture.request_body)


@dataclass
class ApiWorld:
    """Everything behind the API, and a client that speaks to it."""

    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStateStore = field(default_factory=MemoryStateStore)
    capture_store: MemoryCaptureStore = field(default_factory=MemoryCaptureStore)
    calls: list[tuple[str, int]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    wrong_tokens: float = 50
    """How many are answered before the limit holds."""

    def __post_init__(self) -> None:
        self.registry = ListRegistry(self.clock)
        self.captures = CaptureLog(CaptureIds.random())
        self.replayer = Replayer(self.captures.ids)
        self.authenticator = Authenticator(
            self.store,
            self.clock,
            read_admin_token=lambda: ADMIN_SECRET,
            limiter=KeyedLimiter(1, self.wrong_tokens, self.clock),
        )
        self.announcements = Announcements(self.authenticator)
        self.app = make_app(
            registry=self.registry,
            authenticator=self.authenticator,
            enforcement=self.announcements,
            store=self.store,
            captures=self.captures,
            capture_store=self.capture_store,
            replay=self.replayer,
            audit=AuditLog(None, self.clock),
            clock=self.clock,
            facts=FACTS,
            hoody=HoodyFacts(
                started_at=self.clock.now(),
                session_streams=10_000,
                stock_streams=1024,
                free_descriptors=lambda: 450,
                vitals=lambda: Vitals(
                    pid=12345, heap_bytes=15_728_640, resident_bytes=41_943_040, descriptors=128
                ),
            ),
            observe=lambda route, status, _seconds: self.calls.append((route.operation, status)),
            **self.options,
        )

    async def add_token(self, secret: str, label: str = "ci", *, scope: str | None = None) -> Token:
        self.clock.advance(1)
        token = Token(id=str(uuid4()), label=label, scope=scope, created_at=self.clock.now())
        digest = hashlib.sha256(secret.encode()).hexdigest()
        credential = Credential(token_id=token.id, revision=1, sha256=digest)
        await self.store.create_token(token, credential)
        return token

    def add_session(self, token: Token | None = None, session_id: str = "s-1") -> Session:
        session = Session(
            id=session_id,
            protocol="moleport",
            principal=ADMIN if token is None else Principal(token=token, revision=1),
            upstream=IdleUpstream(),
            peer="192.0.2.7:50000",
            connected_at=self.clock.now(),
            agent="moleport/1.2.3",
        )
        self.registry.sessions[session.id] = session
        return session

    def add_tunnel(self, session: Session | None, token: Token | None = None, **how: Any) -> Tunnel:
        token_id = None if token is None else token.id
        tunnel = make_tunnel(session=session, token_id=token_id, **how)
        self.registry.tunnels[tunnel.id] = tunnel
        if session is not None:
            session.tunnels[tunnel.bind_id] = tunnel
        return tunnel

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Api"]:
        async with TestClient(TestServer(self.app)) as client:
            yield Api(self, client)


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Any
    body: bytes
    json: Any


@dataclass
class Api:
    """Calls the API as the admin unless told otherwise."""

    world: ApiWorld
    client: TestClient[web.Request, web.Application]

    async def call(
        self, method: str, path: str, *, secret: str | None = ADMIN_SECRET, **how: Any
    ) -> Answer:
        headers = dict(how.pop("headers", {}))
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        async with self.client.request(method, path, headers=headers, **how) as response:
            body = await response.read()
            is_json = response.content_type == "application/json" and body
            return Answer(
                response.status, response.headers, body, await response.json() if is_json else None
            )

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.call("GET", path, **how)

    async def post(self, path: str, **how: Any) -> Answer:
        return await self.call("POST", path, **how)

    async def put(self, path: str, **how: Any) -> Answer:
        return await self.call("PUT", path, **how)

    async def delete(self, path: str, **how: Any) -> Answer:
        return await self.call("DELETE", path, **how)
