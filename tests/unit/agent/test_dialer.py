import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from helpers.tunnel_server import tunnel_server
from moleport_agent.dialer import Dialer, find_proxy
from moleport_agent.settings import Secret, ServerSettings
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.aio.websocket import UpgradeRefused

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        pytest.param({}, "https://a.test", None, id="none"),
        pytest.param(
            {"HTTPS_PROXY": "http://p:1"}, "https://a.test:4040", "http://p:1", id="https"
        ),
        pytest.param({"HTTPS_PROXY": "http://p:1"}, "http://a.test", None, id="another scheme"),
        pytest.param({"HTTP_PROXY": "http://p:1"}, "http://a.test", "http://p:1", id="http"),
        pytest.param({"ALL_PROXY": "socks5://p:1"}, "https://a.test", "socks5://p:1", id="all"),
        pytest.param({"HTTPS_PROXY": "p:1"}, "https://a.test", "http://p:1", id="without a scheme"),
        pytest.param(
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"},
            "https://a.test",
            None,
            id="left out",
        ),
        pytest.param(
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".test"}, "https://a.test", None, id="domain"
        ),
        pytest.param(
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"},
            "https://a.test",
            None,
            id="all left out",
        ),
    ],
)
def test_proxies_come_from_the_environment(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert find_proxy(url) == proxy


class Receiver:
    """Keeps the transport of one dialled connection."""

    def __init__(self) -> None:
        self.transport: MessageTransport | None = None
        self.lost = asyncio.Event()

    def transport_opened(self, transport: MessageTransport) -> None:
        self.transport = transport

    def message_received(self, message: bytes) -> None: ...

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        self.lost.set()

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


def dialer(url: str) -> Dialer:
    return Dialer(ServerSettings(url=url, read_token=lambda: Secret("t")))


async def test_a_dialled_connection_is_open_and_carries_the_token() -> None:
    async with tunnel_server() as server:
        receiver = Receiver()

        await dialer(server.url).dial(receiver, Secret("token-1"))

        assert receiver.transport is not None
        assert (await server.accept()).token == "token-1"
        receiver.transport.abort()
        async with asyncio.timeout(20):
            await receiver.lost.wait()


async def test_a_refused_upgrade_tells_status_and_reason() -> None:
    async with tunnel_server() as server:
        server.refuse_with = 503

        with pytest.raises(UpgradeRefused) as refused:
            await dialer(server.url).dial(Receiver(), Secret("t"))

        assert refused.value.status == 503
        assert "no" in refused.value.body


async def test_a_server_that_is_not_there_is_an_error_of_the_system() -> None:
    async with tunnel_server() as server:
        url = server.url
    with pytest.raises(OSError, match=r"refused|failed|Connect"):
        await dialer(url).dial(Receiver(), Secret("t"))


async def test_an_authority_that_was_replaced_is_believed_at_the_next_dial(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new.issue_cert("localhost").configure_cert(server_side)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=server_side)
    async with server:
        ca_file = tmp_path / "ca.crt"
        old.cert_pem.write_to_path(ca_file)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        settings = ServerSettings(url=url, read_token=lambda: Secret("t"), ca_file=ca_file)
        dialer = Dialer(settings)
        with pytest.raises(ssl.SSLError):
            await dialer.dial(Receiver(), Secret("t"))
        ca_file.write_text("half of")
        with pytest.raises(ssl.SSLError):
            await dialer.dial(Receiver(), Secret("t"))

        new.cert_pem.write_to_path(ca_file)

        with pytest.raises(UpgradeRefused):
            await dialer.dial(Receiver(), Secret("t"))
