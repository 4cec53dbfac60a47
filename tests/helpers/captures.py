"""Makes captures and tunnels as the edge and the registry would."""

from uuid import UUID, uuid4

from moleport_server.capture.record import Capture, CaptureIds
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.registry.live import Session, Tunnel


def make_tunnel(
    hostname: str | None = "quick-otter.tunnels.example.com",
    *,
    port: int | None = None,
    token_id: str | None = None,
    session: Session | None = None,
    tunnel_id: UUID | None = None,
    bind_id: int = 1,
) -> Tunnel:
    is_http = port is None
    return Tunnel(
        id=tunnel_id or uuid4(),
        protocol=TunnelProtocol.HTTP if is_http else TunnelProtocol.TCP,
        hostname=hostname if is_http else None,
        port=port,
        public_url=f"https://{hostname}" if is_http else f"tcp://tunnels.example.com:{port}",
        token_id=token_id,
        token_label=None,
        session=session,
        session_id="" if session is None else session.id,
        bind_id=bind_id,
        opened_at=1_750_000_000.25,
        client_addr="192.0.2.7:50000",
        request_count=3,
    )


def make_capture(
    ids: CaptureIds,
    target: bytes = b"/",
    *,
    method: bytes = b"GET",
    request_body: bytes | None = None,
    response_body: bytes | None = None,
    request_bytes: int | None = None,
    request_truncated: bool = False,
    head_bytes: int = 0,
) -> Capture:
    return Capture(
        sequence=ids.requests.next(),
        method=method,
        target=target,
        status=200,
        request_bytes=len(request_body or b"") if request_bytes is None else request_bytes,
        response_bytes=len(response_body or b""),
        duration_seconds=0.0454,
        captured_at=1_750_000_001.5,
        connection_id=7,
        request_head=b"GET " + target + b" HTTP/1.1\r\nCookie: a=b\r\n\r\n" + b"x" * head_bytes,
        response_head=b"HTTP/1.1 200 OK\r\n\r\n",
        request_body=request_body,
        response_body=response_body,
        request_truncated=request_truncated,
        response_truncated=False,
        peer="198.51.100.4:40000",
    )
