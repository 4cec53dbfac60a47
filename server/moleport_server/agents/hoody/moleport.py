"""The session of our own agent: hoody-tunnel.v2 with `moleport.1` (docs/reference/protocol.md).

Beyond the base protocol it binds public names and ports, carries raw bytes, proves a new revision of its
token in place, is told before the server ends, and gets reports of finished requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from moleport_server.agents.hoody.container_claims import container_claim
from moleport_server.agents.hoody.session import HoodySession
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    InvalidRequest,
    ServerError,
    Unauthenticated,
    UpstreamBusy,
)
from moleport_server.registry.claim import Claim
from moleport_server.registry.container_ports import Contest
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.mux import Mux
from moleport_wire.hoody.streams import Stream, StreamReceiver

if TYPE_CHECKING:
    from moleport_server.agents.hoody.login import AgentSessions

REPORT_SECONDS: Final = 0.25
REPORTS_PER_FRAME: Final = 50
"""A live view shows no more than 200 lines a second; the rest is counted."""
MAX_REPORTED_PATH: Final = 256


class MoleportSession(HoodySession):
    """One live session of an agent that speaks `moleport.1`."""

    def __init__(
        self,
        shared: AgentSessions,
        session_id: str,
        principal: Principal,
        hello: messages.Hello,
        peer: str,
    ) -> None:
        settings = shared.settings
        mux = Mux(
            self,
            shared.budget,
            stream_window=settings.stream_window_bytes,
            session_window=settings.session_window_bytes,
            opens=True,
        )
        record = Session(
            id=session_id,
            protocol="moleport",
            principal=principal,
            upstream=self,
            peer=peer,
            connected_at=shared.clock.now(),
            agent=hello.agent[:128],
        )
        super().__init__(shared, record, mux, ping_seconds=settings.ping_seconds)
        self._wants_reports = hello.wants_reports
        self._reports: list[messages.ReportedRequest] = []
        self._reports_skipped = 0
        self._report_timer: asyncio.TimerHandle | None = None

    def say_hello(self, hello: messages.Hello, tunnels: list[Tunnel], *, resumed: bool) -> None:
        """Answer HELLO; the agent takes streams from here on."""
        settings = self._shared.settings
        tickets = self._issue_tickets(hello)
        self._take_back(tunnels)
        answer = messages.HelloOk(
            session_id=self.record.id,
            resumed=resumed,
            resumed_binds=tuple(
                messages.ResumedBind(
                    bind_id=t.bind_id,
                    kind=t.protocol.value,
                    mode="expose" if t.container is None else t.container.mode.value,
                    container_port=0 if t.container is None else t.container.port,
                    public_url=t.public_url or None,
                )
                for t in tunnels
            ),
            stream_window=settings.stream_window_bytes,
            session_window=settings.session_window_bytes,
            connections_granted=1 + len(tickets),
            join_tickets=tickets,
            capabilities=(messages.CAPABILITY_MOLEPORT,),
            server=settings.server_name,
            lease_seconds=int(self._shared.registry.lease_seconds),
        )
        self._send(frames.HELLO_OK, answer.encode())
        self._shared.registry.attach(self.record, tunnels)

    # Upstream

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> Stream:
        """Open a stream on the link with the fewest bytes queued."""
        bind_id = tunnel.bind_id
        mux = self._mux
        self._check_room(bind_id, mux.open_streams, self._shared.settings.max_streams)
        try:
            return mux.open(
                self._emptiest_port(bind_id).link,
                receiver,
                lambda window: messages.StreamOpen(
                    bind_id=bind_id, peer=peer, window=window
                ).encode(),
            )
        except RemoteProtocolError as error:
            self._renew()
            raise UpstreamBusy("the session is being renewed") from error

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Collect a finished request for the agent's live view."""
        if not self._wants_reports:
            return
        if len(self._reports) >= REPORTS_PER_FRAME:
            self._reports_skipped += 1
            return
        path = target.partition(b"?")[0][:MAX_REPORTED_PATH].decode("utf-8", "replace")
        self._reports.append(
            messages.ReportedRequest(
                bind_id=tunnel.bind_id,
                method=method.decode("latin-1"),
                path=path,
                status=status,
                duration_ms=seconds * 1000,
                peer=peer,
            )
        )
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(REPORT_SECONDS, self._send_reports)

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell the agent to connect elsewhere."""
        if not self._is_ended:
            payload = messages.Drain(
                deadline_ms=int(deadline_seconds * 1000), reason=reason
            ).encode()
            self._send(frames.DRAIN, payload)

    # What differs from other sessions

    def _leave(self, reason: str, cause: SessionEnd) -> None:
        self._shared.registry.lose_session(self.record, reason, is_clean=True, cause=cause)

    def _lost(self, close_code: int | None, reason: str) -> None:
        # Our agent says goodbye with GOAWAY; any other end, a close frame included (a proxy that
        # restarts sends one), keeps the session for its return.
        del close_code
        self._shared.registry.lose_session(self.record, reason, is_clean=False)

    @property
    def _patience_seconds(self) -> float:
        return self._shared.settings.silence_seconds

    def _is_silent(self, primary: LinkPort) -> bool:
        silence = self._shared.settings.silence_seconds
        if self._loop.time() - primary.received_at <= silence:
            return False
        primary.transport.abort()
        primary.transport_lost(None, f"silent for {silence:g} s")
        return True

    def _receive_bind(self, payload: Payload) -> None:
        bind = messages.Bind.decode(payload)
        try:
            claim = _claim_of(bind)
        except InvalidRequest as error:
            self._refuse_bind(bind.client_bind_ref, error)
        else:
            self._begin_bind(bind.client_bind_ref, claim)

    def _receive_extension(self, frame_type: int, payload: Payload) -> None:
        if frame_type == frames.REAUTH:
            reauth = messages.Reauth.decode(payload)
            self._shared.tasks.start(self._reauthenticate(reauth.token), "agent reauthentication")

    def _joined(self) -> None:
        """Nothing waits for that."""

    def _stopped(self, reason: str) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()

    async def _reauthenticate(self, secret: str) -> None:
        address = self.record.peer.rpartition(":")[0].strip("[]")
        try:
            async with asyncio.timeout(self._shared.settings.first_frame_seconds):
                principal = await self._shared.authenticator.authenticate(
                    secret, address=address, kind="agent"
                )
            if principal.token_id != self.record.principal.token_id:
                raise Unauthenticated("the credential belongs to another token")
        except (ServerError, TimeoutError) as error:
            text = str(error) or "the server could not check the token in time"
            self._send(
                frames.REAUTH_ERR, messages.Refusal(code="INVALID_TOKEN", message=text).encode()
            )
            return
        self.record.principal = principal
        self._send(frames.REAUTH_OK, b"{}")

    def _send_reports(self) -> None:
        self._report_timer = None
        reports, self._reports = self._reports, []
        skipped, self._reports_skipped = self._reports_skipped, 0
        if not self._is_ended:
            report = messages.Report(requests=tuple(reports), skipped=skipped)
            self._send(frames.REPORT, report.encode())


def _claim_of(bind: messages.Bind) -> Claim:
    if bind.is_container:
        users = bind.basic_auth
        return replace(
            container_claim(replace(bind, label=bind.subdomain), Contest.RETURN),
            basic_auth=None if users is None else tuple((u.user, u.password_hash) for u in users),
            allowed_cidrs=bind.allowed_cidrs,
            host_header=bind.host_header,
        )
    if bind.mode != "expose" or bind.kind not in ("http", "tcp"):
        raise InvalidRequest(f"kind {bind.kind!r} with mode {bind.mode!r} cannot be bound here")
    if bind.hostname is not None and bind.subdomain is not None:
        raise InvalidRequest("give hostname or subdomain, not both")
    users = bind.basic_auth
    return Claim(
        protocol=TunnelProtocol(bind.kind),
        hostname=bind.hostname,
        subdomain=bind.subdomain,
        port=bind.port,
        is_wish=bind.is_wish,
        basic_auth=None if users is None else tuple((u.user, u.password_hash) for u in users),
        allowed_cidrs=bind.allowed_cidrs,
        host_header=bind.host_header,
    )
