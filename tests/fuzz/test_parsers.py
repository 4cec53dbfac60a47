"""Every parser of bytes from strangers: a valid object or its documented error, nothing else.

A short run that is the same each time belongs to the tests; `pytest tests/fuzz
--hypothesis-profile=fuzz --timeout=0` goes on for long and finds its own way.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.yamux_pair import Side
from moleport_server.edge.client_hello import NotTls, parse_client_hello
from moleport_wire import passwords, proxy_protocol
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import serialize
from moleport_wire.rustunnel import messages as rustunnel
from moleport_wire.yamux import frames as yamux

is_long = settings.get_current_profile_name() == "fuzz"
run = settings() if is_long else settings(derandomize=True, max_examples=60, database=None)

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
JSON = [
    b'{"version":"hoody-tunnel.v2","capabilities":["moleport.1"],"resume":{"sessionId":"S-1"}}',
    (
        b'{"sessionId":"S-1","streamWindow":262144,"sessionWindow":16777216,"joinTickets":'
        b'[{"index":1,"nonce":"n","expiresMs":15000}],"resumedBinds":[{"bindId":1,"kind":"http",'
        b'"mode":"expose","containerPort":0}]}'
    ),
    (
        b'{"clientBindRef":1,"kind":"http","mode":"expose","containerPort":0,"basicAuth":'
        b'[{"user":"u","hash":"h"}],"allowedCidrs":["10.0.0.0/8"]}'
    ),
    b'{"requests":[[1,"GET","/",200,1.5,"192.0.2.1:5"]],"skipped":1}',
    b'{"bindId":7,"code":1,"message":"\\ud83d\\ude00","token":"t","deadlineMs":1,"window":1}',
]
HELLO = bytes.fromhex(
    "160301003c010000380303" + "00" * 32 + "00000213010100000d0000000900070000046174746c"
)


@dataclass(frozen=True)
class Target:
    """A parser, what it may raise, and inputs near to valid ones."""

    parse: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    seeds: list[bytes]


def read_frames(message: bytes) -> None:
    for _ in frames.parse(message):
        pass


def read_yamux(data: bytes) -> None:
    side = Side(is_client=False)
    for position in range(0, len(data), 100):
        side.mux.receive(data[position : position + 100])


RUSTUNNEL_ID = "0192f0c1-5a3e-7b11-8d2e-4c6a9be01f23"
TARGETS = {
    "frames": Target(
        read_frames,
        (RemoteProtocolError,),
        [serialize(0x12, 2, bytes(40)) + serialize(0x15, 0, b"\0\0\1\0"), serialize(0x7F, 9) * 64],
    ),
    "yamux": Target(
        read_yamux,
        (RemoteProtocolError,),
        [
            yamux.serialize(yamux.DATA, yamux.SYN, 1, body=bytes(40))
            + yamux.serialize(yamux.WINDOW_UPDATE, yamux.SYN, 3, 9)
            + yamux.serialize(yamux.DATA, yamux.FIN, 1, body=bytes(200))
            + yamux.serialize(yamux.DATA, yamux.RST, 3),
            yamux.serialize(yamux.PING, yamux.SYN, 0, 7) * 3 + yamux.serialize(yamux.GO_AWAY, 0, 0),
        ],
    ),
    "rustunnel message": Target(
        rustunnel.decode,
        (rustunnel.MalformedMessage,),
        [
            b'{"type":"auth","token":"t","client_version":"0.3.6"}',
            (
                b'{"type":"register_tunnel","request_id":"r","protocol":"http","subdomain":null,'
                b'"local_addr":"a:1","health_check":{"kind":"http","interval_secs":5}}'
            ),
            f'{{"type":"tunnel_healthy","tunnel_id":"{RUSTUNNEL_ID}"}}'.encode(),
            b'{"type":"ping","timestamp":18446744073709551615}',
        ],
    ),
    "PROXY header": Target(
        proxy_protocol.parse,
        (proxy_protocol.ProxyHeaderError,),
        [
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            V2 + b"\x21\x11\x00\x0c" + bytes(12),
            V2 + b"\x21\x21\x00\x24" + bytes(36),
        ],
    ),
    "password hash": Target(
        lambda data: passwords.parse_hash(data.decode("latin-1")),
        (passwords.PasswordHashError,),
        [b"$scrypt$ln=14,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$" + b"A" * 43],
    ),
    "ClientHello": Target(parse_client_hello, (NotTls,), [HELLO]),
} | {
    kind.__name__: Target(kind.decode, (RemoteProtocolError,), JSON)
    for kind in (
        messages.Hello,
        messages.HelloOk,
        messages.Join,
        messages.Refusal,
        messages.Bind,
        messages.BindOk,
        messages.BindErr,
        messages.Unbind,
        messages.UnbindErr,
        messages.BindRevoked,
        messages.StreamOpen,
        messages.GoAway,
        messages.Reauth,
        messages.Drain,
        messages.Report,
    )
}

TELLING = [
    b"\0",
    b"\xff",
    b"\xff" * 4,
    b"\x80",
    b"\r\n",
    b'"',
    b"{",
    b"]",
    b"null",
    b"1e999",
    b"-1",
]


@st.composite
def near(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some bytes replaced, inserted, repeated or cut off."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 1, 2, 4, 16])))
        piece = draw(st.sampled_from([b"", *TELLING]) | st.binary(max_size=8))
        repeats = draw(st.sampled_from([1, 1, 1, 2, 100]))
        data = data[:start] + piece * repeats + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
@run
@given(data=st.data())
def test_a_parser_returns_or_raises_its_error_and_nothing_else(
    name: str, data: st.DataObject
) -> None:
    target = TARGETS[name]
    text = data.draw(st.binary(max_size=2000) | near(target.seeds))

    with suppress(*target.errors):
        target.parse(text)


@pytest.mark.parametrize(
    "name",
    ["frames", "yamux", "rustunnel message", "PROXY header", "password hash", "ClientHello"],
)
def test_the_seeds_are_valid(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].parse(seed)
