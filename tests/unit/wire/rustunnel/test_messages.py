import json
from uuid import UUID

import pytest

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.rustunnel.messages import (
    KINDS,
    Auth,
    AuthError,
    AuthOk,
    DataStreamOpen,
    HealthCheck,
    MalformedMessage,
    Message,
    NewConnection,
    P2pConnect,
    P2pError,
    Ping,
    Pong,
    RegisterTunnel,
    TunnelError,
    TunnelHealthy,
    TunnelRegistered,
    TunnelUnhealthy,
    UnknownMessage,
    UnregisterTunnel,
    decode,
    parse_release,
)

ID_TEXT = "0192f0c1-5a3e-7b11-8d2e-4c6a9be01f23"
ID = UUID(ID_TEXT)
U64 = 2**64 - 1

SENT: list[tuple[Message, str]] = [
    (
        Auth(token="s3cret", client_version="0.3.6"),
        '{"type":"auth","token":"s3cret","client_version":"0.3.6"}',
    ),
    (
        AuthOk(session_id=ID, server_version="0.3.6"),
        f'{{"type":"auth_ok","session_id":"{ID_TEXT}","server_version":"0.3.6"}}',
    ),
    (AuthError(message="invalid token"), '{"type":"auth_error","message":"invalid token"}'),
    (
        TunnelRegistered(request_id="r-1", tunnel_id=ID, public_url="https://a.example"),
        (
            f'{{"type":"tunnel_registered","request_id":"r-1","tunnel_id":"{ID_TEXT}",'
            '"public_url":"https://a.example","assigned_port":null}'
        ),
    ),
    (
        TunnelRegistered(
            request_id="r-1", tunnel_id=ID, public_url="tcp://a.example:20007", assigned_port=20007
        ),
        (
            f'{{"type":"tunnel_registered","request_id":"r-1","tunnel_id":"{ID_TEXT}",'
            '"public_url":"tcp://a.example:20007","assigned_port":20007}'
        ),
    ),
    (
        TunnelError(request_id="r-1", message="3–63"),
        '{"type":"tunnel_error","request_id":"r-1","message":"3–63"}',
    ),
    (
        NewConnection(conn_id=ID, client_addr="[2001:db8::1]:80", protocol="http"),
        (
            f'{{"type":"new_connection","conn_id":"{ID_TEXT}","client_addr":"[2001:db8::1]:80",'
            '"protocol":"http"}'
        ),
    ),
    (UnregisterTunnel(tunnel_id=ID), f'{{"type":"unregister_tunnel","tunnel_id":"{ID_TEXT}"}}'),
    (DataStreamOpen(conn_id=ID), f'{{"type":"data_stream_open","conn_id":"{ID_TEXT}"}}'),
    (Ping(timestamp=U64), f'{{"type":"ping","timestamp":{U64}}}'),
    (Pong(timestamp=0), '{"type":"pong","timestamp":0}'),
    (TunnelHealthy(tunnel_id=ID), f'{{"type":"tunnel_healthy","tunnel_id":"{ID_TEXT}"}}'),
    (
        TunnelUnhealthy(tunnel_id=ID, reason="timeout"),
        f'{{"type":"tunnel_unhealthy","tunnel_id":"{ID_TEXT}","reason":"timeout"}}',
    ),
    (
        P2pConnect(request_id="r", target_tunnel_name="n", secret_hash="h"),
        '{"type":"p2p_connect","request_id":"r","target_tunnel_name":"n","secret_hash":"h"}',
    ),
    (
        P2pError(request_id="r", message="no"),
        '{"type":"p2p_error","request_id":"r","message":"no"}',
    ),
]


@pytest.mark.parametrize(("message", "text"), SENT, ids=[type(m).__name__ for m, _ in SENT])
def test_a_message_is_spelled_like_this_and_read_back(message: Message, text: str) -> None:
    assert message.encode().decode() == text
    assert decode(text.encode()) == message
    assert decode(memoryview(text.encode())) == message


REGISTERED = RegisterTunnel(
    request_id="r", protocol="http", subdomain="shop", local_addr="localhost:3000"
)
RECEIVED: list[tuple[str, str, Message]] = [
    (
        "register of 0.3.6",
        (
            '{"type":"register_tunnel","request_id":"r","protocol":"http","subdomain":"shop",'
            '"local_addr":"localhost:3000"}'
        ),
        REGISTERED,
    ),
    (
        "null for absent",
        (
            '{"type":"register_tunnel","request_id":"r","protocol":"tcp","subdomain":null,'
            '"local_addr":"localhost:22","group":null,"health_check":null}'
        ),
        RegisterTunnel(request_id="r", protocol="tcp", local_addr="localhost:22"),
    ),
    (
        "optional keys absent",
        '{"type":"register_tunnel","request_id":"r","protocol":"udp","local_addr":"localhost:53"}',
        RegisterTunnel(request_id="r", protocol="udp", local_addr="localhost:53"),
    ),
    (
        "keys of a later version",
        (
            '{"type":"register_tunnel","request_id":"r","protocol":"http","subdomain":"shop",'
            '"local_addr":"localhost:3000","p2p_name":"n","colour":{"deep":[1]}}'
        ),
        REGISTERED,
    ),
    (
        "type comes last, with spaces",
        (
            ' { "subdomain" : "shop", "local_addr":"localhost:3000",\n"protocol":"http",'
            '"request_id":"r", "type" : "register_tunnel" } '
        ),
        REGISTERED,
    ),
    (
        "group of 0.7",
        (
            '{"type":"register_tunnel","request_id":"r","protocol":"http","subdomain":"shop",'
            '"local_addr":"localhost:3000","group":"g","group_key_hash":"ab","health_check":'
            '{"kind":"http","interval_secs":5,"timeout_secs":2,"max_failed":1,"http_path":"/up",'
            '"http_expect_2xx":false,"alert_webhook_url":"https://hook.example"}}'
        ),
        RegisterTunnel(
            request_id="r",
            protocol="http",
            subdomain="shop",
            local_addr="localhost:3000",
            group="g",
            group_key_hash="ab",
            health_check=HealthCheck(
                kind="http",
                interval_seconds=5,
                timeout_seconds=2,
                max_failed=1,
                http_path="/up",
                expects_2xx=False,
                alert_webhook_url="https://hook.example",
            ),
        ),
    ),
    (
        "health check by default",
        (
            '{"type":"register_tunnel","request_id":"r","protocol":"http","subdomain":"shop",'
            '"local_addr":"localhost:3000","health_check":{"kind":"tcp"}}'
        ),
        RegisterTunnel(
            request_id="r",
            protocol="http",
            subdomain="shop",
            local_addr="localhost:3000",
            health_check=HealthCheck(
                kind="tcp", interval_seconds=10, timeout_seconds=3, max_failed=3, expects_2xx=True
            ),
        ),
    ),
    (
        "no token",
        '{"type":"auth","token":"","client_version":"0.8.2"}',
        Auth(token="", client_version="0.8.2"),
    ),
    (
        "UUID in upper case",
        f'{{"type":"unregister_tunnel","tunnel_id":"{ID_TEXT.upper()}"}}',
        UnregisterTunnel(tunnel_id=ID),
    ),
    (
        "UUID without hyphens",
        f'{{"type":"unregister_tunnel","tunnel_id":"{ID.hex}"}}',
        UnregisterTunnel(tunnel_id=ID),
    ),
]


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in RECEIVED], ids=[row[0] for row in RECEIVED]
)
def test_what_clients_of_all_versions_send_is_read(text: str, expected: Message) -> None:
    assert decode(text.encode()) == expected


def test_every_message_stands_in_a_table() -> None:
    kinds = {json.loads(text)["type"] for _, text in SENT}
    kinds |= {json.loads(text)["type"] for _, text, _ in RECEIVED}

    assert kinds == KINDS


UNREADABLE: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no JSON", b"hello"),
    ("array", b'["auth"]'),
    ("no type", b'{"token":"t","client_version":"1"}'),
    ("type is no text", b'{"type":1}'),
    ("two objects", b'{"type":"ping","timestamp":1}{"type":"ping","timestamp":1}'),
    ("UTF-16", '{"type":"ping","timestamp":1}'.encode("utf-16")),
    ("too deep", b'{"type":"ping","timestamp":1,"x":' + b"[" * 100_000),
]
WRONG: list[tuple[str, str, bytes]] = [
    ("value missing", "auth", b'{"type":"auth","token":"t"}'),
    ("null for a text", "auth", b'{"type":"auth","token":null,"client_version":"1"}'),
    ("fraction", "ping", b'{"type":"ping","timestamp":1.0}'),
    ("negative", "ping", b'{"type":"ping","timestamp":-1}'),
    ("text for a number", "ping", b'{"type":"ping","timestamp":"1"}'),
    ("boolean for a number", "ping", b'{"type":"ping","timestamp":true}'),
    ("text too long", "auth", b'{"type":"auth","client_version":"1","token":"%b"}' % (b"t" * 1025)),
    ("no UUID", "unregister_tunnel", b'{"type":"unregister_tunnel","tunnel_id":"7"}'),
    ("not UTF-8", "auth", b'{"type":"auth","client_version":"1","token":"\xff"}'),
    ("port too high", "tunnel_registered", b'{"type":"tunnel_registered","request_id":"r",'
     b'"tunnel_id":"%b","public_url":"u","assigned_port":65536}' % ID_TEXT.encode()),
]  # fmt: skip


@pytest.mark.parametrize("payload", [row[1] for row in UNREADABLE], ids=[r[0] for r in UNREADABLE])
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(payload)

    assert isinstance(caught.value, RemoteProtocolError)
    assert (caught.value.kind, caught.value.request_id) == ("", None)


@pytest.mark.parametrize(("kind", "payload"), [r[1:] for r in WRONG], ids=[r[0] for r in WRONG])
def test_a_message_with_a_wrong_value_is_refused_by_its_kind(kind: str, payload: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(payload)

    assert caught.value.kind == kind
    assert not isinstance(caught.value, UnknownMessage)


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(MalformedMessage):
        decode(b'{"type":"auth","client_version":"1","token":"\\ud800"}')


def test_a_kind_of_the_future_is_told_from_a_broken_message() -> None:
    with pytest.raises(UnknownMessage) as caught:
        decode(b'{"type":"register_rocket","request_id":"r-9"}')

    assert (caught.value.kind, caught.value.request_id) == ("register_rocket", "r-9")


def test_who_waits_for_an_answer_is_known_also_when_the_rest_is_wrong() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(b'{"type":"register_tunnel","request_id":"r-9","protocol":7}')

    assert (caught.value.kind, caught.value.request_id) == ("register_tunnel", "r-9")


@pytest.mark.parametrize(
    "message",
    [
        Auth(token="hush", client_version="1"),
        AuthOk(session_id=ID, server_version="1"),
        RegisterTunnel(
            request_id="r",
            protocol="http",
            local_addr="a",
            group_key_hash="hush",
            health_check=HealthCheck(kind="http", alert_webhook_url="https://hush"),
        ),
        HealthCheck(kind="http", alert_webhook_url="https://hush"),
        P2pConnect(request_id="r", target_tunnel_name="n", secret_hash="hush"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_secrets_are_not_shown(message: object) -> None:
    assert "hush" not in repr(message)
    assert ID_TEXT not in repr(message)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.3.6", (0, 3, 6)),
        ("0.7.0-rc.1", (0, 7, 0)),
        ("1.22.333+build", (1, 22, 333)),
        ("0.7", None),
        ("v0.7.0", None),
        ("0.7.0.1", None),
        ("", None),
        ("0.7.x", None),
        ("\u0660.\u0667.\u0660", None),
        ("0.7." + "9" * 10, None),
    ],
)
def test_a_version_has_three_numbers_or_counts_as_old(
    version: str, expected: tuple[int, int, int] | None
) -> None:
    assert parse_release(version) == expected
