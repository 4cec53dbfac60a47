"""Real connections on loopback, on both event loops."""

import asyncio
import errno
import gc
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers.certificates import TestAuthority
from helpers.loops import on_both_loops
from helpers.waiting import until
from moleport_server.config.values import Endpoint
from moleport_server.edge import tls_listener
from moleport_server.edge.tls import CertificateStore
from moleport_server.edge.tls_listener import Arrival, TlsListener
from moleport_server.listening import bind_listener


class CountingGate:
    def __init__(self, limit: int = 100) -> None:
        self.inside: Counter[str] = Counter()
        self.limit = limit

    def enter(self, address: str) -> bool:
        if self.inside[address] >= self.limit:
            return False
        self.inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        self.inside[address] -= 1


class Greeter(asyncio.Protocol):
    """Tells what is known about the connection, and closes it."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def connection_made(self, transport: Any) -> None:
        text = f"{self._arrival.server_name} {self._arrival.address} {self._arrival.port}"
        transport.write(text.encode())
        transport.close()


class LinePreamble:
    """A stand-in for PROXY headers: `address port` and a line feed."""

    def is_expected_from(self, address: str) -> bool:
        return address == "127.0.0.1"

    def read(self, data: bytes) -> Any:
        head, newline, _ = data.partition(b"\n")
        if not newline:
            if len(data) > 40:
                raise ValueError("no PROXY header")
            return None
        if head == b"unknown":
            return len(head) + 1, None
        address, port = head.decode().split()
        return len(head) + 1, (address, int(port))


class World:
    """A listener with its certificates, and what happened at it."""

    def __init__(self, directory: Path) -> None:
        self.authority = TestAuthority(directory)
        self.files = self.authority.write("default", "default.example")
        self.certificates = CertificateStore(
            [self.files, self.authority.write("other", "*.other.example")]
        )
        self.gate = CountingGate()
        self.failures: list[str] = []
        self.failed = asyncio.Event()

    def listener(self, **changes: Any) -> TlsListener:
        def note(reason: str) -> None:
            self.failures.append(reason)
            self.failed.set()

        given: dict[str, Any] = {
            "make_protocol": Greeter,
            "gate": self.gate,
            "handshake_seconds": 5.0,
            "note_failure": note,
        }
        sock = bind_listener(Endpoint("127.0.0.1", 0))
        return TlsListener(sock, self.certificates, **(given | changes))

    async def greet(
        self, port: int, name: str, *, before: bytes = b""
    ) -> tuple[str, dict[str, Any]]:
        """Connect like a client that verifies, and return the greeting and the certificate."""
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(before)
                await writer.start_tls(self.authority.client(), server_hostname=name)
                certificate = writer.get_extra_info("peercert")
                return (await reader.read()).decode(), certificate
            finally:
                writer.close()


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = World(tmp_path)
    yield world
    assert +world.gate.inside == Counter(), "somebody entered the gate and never left"
    gc.collect()  # a leaked socket becomes a warning, which is an error


@on_both_loops
async def test_the_protocol_learns_the_name_and_the_client_gets_its_certificate(
    world: World,
) -> None:
    async with world.listener() as listener:
        greeting, certificate = await world.greet(listener.port, "a.other.example")
        default, _ = await world.greet(listener.port, "default.example")

    assert greeting.startswith("a.other.example 127.0.0.1 ")
    assert certificate["subjectAltName"] == (("DNS", "*.other.example"),)
    assert default.startswith("default.example 127.0.0.1 ")


@on_both_loops
async def test_a_replaced_certificate_serves_the_next_connection(world: World) -> None:
    async with world.listener() as listener:
        await world.greet(listener.port, "default.example")
        world.authority.write("default", "renamed.example")
        await world.certificates.reload()

        _, certificate = await world.greet(listener.port, "renamed.example")

    assert certificate["subjectAltName"] == (("DNS", "renamed.example"),)


@on_both_loops
async def test_a_client_that_refuses_the_certificate_costs_nothing(world: World) -> None:
    async with world.listener() as listener:
        with pytest.raises(ssl.SSLCertVerificationError):
            await world.greet(listener.port, "wrong.example")

        greeting, _ = await world.greet(listener.port, "default.example")

    assert greeting.startswith("default.example")


@on_both_loops
async def test_a_hello_in_single_bytes_is_served(world: World) -> None:
    client = world.authority.client()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing, server_hostname="default.example")
    async with world.listener() as listener, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        for byte in outgoing.read():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        while True:
            incoming.write(await reader.read(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        writer.close()

    assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("preamble", [b"192.0.2.7 4711\n", b"unknown\n"], ids=["known", "unknown"])
@on_both_loops
async def test_the_client_of_a_proxy_is_told_to_the_protocol(world: World, preamble: Any) -> None:
    async with world.listener(preamble=LinePreamble()) as listener:
        greeting, _ = await world.greet(listener.port, "default.example", before=preamble)

    expected = "192.0.2.7 4711" if preamble.startswith(b"192") else "127.0.0.1 "
    assert greeting.startswith(f"default.example {expected}")


async def send(port: int, data: bytes, *, eof: bool = False) -> bytes:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            if eof:
                writer.write_eof()
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("data", "eof", "reason"),
    [
        pytest.param(b"\x00\x01\x02", False, "not_tls", id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", True, "handshake", id="half-a-hello"),
        pytest.param(b"", True, "handshake", id="nothing"),
    ],
)
@on_both_loops
async def test_what_is_not_tls_is_closed_and_counted(
    world: World, data: Any, eof: Any, reason: Any
) -> None:
    async with world.listener() as listener:
        assert await send(listener.port, data, eof=eof) == b""
        async with asyncio.timeout(20):
            await world.failed.wait()

    assert world.failures == [reason]


@on_both_loops
async def test_plain_http_is_told_what_to_do(world: World) -> None:
    async with world.listener() as listener:
        answer = await send(listener.port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"https://" in body


@on_both_loops
async def test_a_wrong_preamble_is_refused(world: World) -> None:
    async with world.listener(preamble=LinePreamble()) as listener:
        assert await send(listener.port, b"x" * 60) == b""

    assert world.failures == ["preamble"]


@on_both_loops
async def test_a_client_that_says_nothing_ends_at_the_deadline(world: World) -> None:
    async with world.listener(handshake_seconds=0.05) as listener:
        assert await send(listener.port, b"") == b""

    assert world.failures == ["timeout"]


@on_both_loops
async def test_a_full_gate_refuses_before_any_work(world: World) -> None:
    world.gate.limit = 0
    async with world.listener() as listener:
        assert await send(listener.port, b"") == b""

    assert world.failures == ["refused"]


@on_both_loops
async def test_a_protocol_may_take_its_place_over_and_it_is_given_back_once(world: World) -> None:
    world.gate.limit = 1

    class Entering(Greeter):
        def connection_made(self, transport: Any) -> None:
            self._arrival.leave_gate()
            self._arrival.leave_gate()
            assert world.gate.enter("127.0.0.1")
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            world.gate.leave("127.0.0.1")

    async with world.listener(make_protocol=Entering) as listener:
        for _ in range(2):
            greeting, _ = await world.greet(listener.port, "default.example")
            assert greeting.startswith("default.example 127.0.0.1")
            await until(lambda: not world.gate.inside["127.0.0.1"])

    assert world.gate.inside["127.0.0.1"] == 0
    assert world.failures == []


@on_both_loops
async def test_leaving_ends_handshakes_under_way(world: World) -> None:
    async with asyncio.timeout(20):
        async with world.listener() as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            while not world.gate.inside["127.0.0.1"]:
                await asyncio.sleep(0)
        assert await reader.read() == b""
        writer.close()


@on_both_loops
async def test_a_stopped_listener_accepts_nothing_and_finishes_what_it_has(world: World) -> None:
    async with world.listener() as listener, asyncio.timeout(20):
        port = listener.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not world.gate.inside["127.0.0.1"]:
            await asyncio.sleep(0)

        listener.stop()
        listener.stop()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await writer.start_tls(world.authority.client(), server_hostname="default.example")
        assert (await reader.read()).startswith(b"default.example")
        writer.close()


@on_both_loops
async def test_accepting_goes_on_after_the_system_ran_out_of_descriptors(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_listener, "RETRY_SECONDS", 0.01)
    listener = world.listener()
    real, failures = listener._sock, [errno.EMFILE]

    class Exhausted:
        def accept(self) -> Any:
            if failures:
                raise OSError(failures.pop(), "Too many open files")
            return real.accept()

        def __getattr__(self, name: Any) -> Any:
            return getattr(real, name)

    monkeypatch.setattr(listener, "_sock", Exhausted())

    async with listener:
        greeting, _ = await world.greet(listener.port, "default.example")

    assert greeting.startswith("default.example")
    assert [record.getMessage() for record in caplog.records] == ["cannot accept connections"]


@on_both_loops
async def test_a_bug_in_a_protocol_does_not_end_the_listener(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_arrival: Arrival) -> asyncio.Protocol:
        raise RuntimeError("bug")

    async with world.listener(make_protocol=broken) as listener:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await world.greet(listener.port, "default.example")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await world.greet(listener.port, "default.example")

    assert "connection failed before its protocol" in caplog.text


@on_both_loops
async def test_a_taken_port_is_an_os_error() -> None:
    with bind_listener(Endpoint("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match="in use") as caught:
            bind_listener(Endpoint("127.0.0.1", port))

    assert caught.value.errno == errno.EADDRINUSE
