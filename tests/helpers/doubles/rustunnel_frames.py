"""The JSON messages of the rustunnel control channel, read as strictly as the stock client does.

A message of the wrong shape is an error here even where a lenient reader would understand it: the
stock client's decoder knows exact integers, exact types and a closed list of names.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

Frame = dict[str, Any]


class BadFrame(Exception):
    """The client would not decode this; the text is close to what it would log."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_uuid(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _is_unsigned(bits: int) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**bits

    return check


def _or_null(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _is_protocol(value: object) -> bool:
    return value in {"http", "https", "tcp", "udp", "p2p"}


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_FIELDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "auth": {"token": _is_text, "client_version": _is_text},
    "auth_ok": {"session_id": _is_uuid, "server_version": _is_text},
    "auth_error": {"message": _is_text},
    "register_tunnel": {
        "request_id": _is_text,
        "protocol": _is_protocol,
        "subdomain": _or_null(_is_text),
        "local_addr": _is_text,
    },
    "tunnel_registered": {
        "request_id": _is_text,
        "tunnel_id": _is_uuid,
        "public_url": _is_text,
        "assigned_port": _or_null(_is_unsigned(16)),
    },
    "tunnel_error": {"request_id": _is_text, "message": _is_text},
    "unregister_tunnel": {"tunnel_id": _is_uuid},
    "new_connection": {"conn_id": _is_uuid, "client_addr": _is_text, "protocol": _is_protocol},
    "data_stream_open": {"conn_id": _is_uuid},
    "ping": {"timestamp": _is_unsigned(64)},
    "pong": {"timestamp": _is_unsigned(64)},
    "p2p_connected": {"request_id": _is_text, "conn_id": _is_uuid},
    "p2p_error": {"request_id": _is_text, "message": _is_text},
    "p2p_punch_instructions": {
        "conn_id": _is_uuid,
        "peer_addrs": _is_texts,
        "strategy": _is_text,
        "punch_timeout_ms": _is_unsigned(32),
    },
}
_MAY_BE_ABSENT = {("tunnel_registered", "assigned_port"), ("register_tunnel", "subdomain")}


def encode(kind: str, **fields: object) -> bytes:
    """Write a message."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()


def decode(data: bytes) -> Frame:
    """Read a message of the server.

    Raises:
        BadFrame: The stock client would not read it. With an unknown name the text lists the known
            ones, and so holds the word that old clients search for.
    """
    try:
        frame = json.loads(data)
    except ValueError as error:
        raise BadFrame(f"{error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise BadFrame("missing field `type`")
    fields = _FIELDS.get(frame["type"])
    if fields is None:
        names = ", ".join(f"`{name}`" for name in _FIELDS)
        raise BadFrame(f"unknown variant `{frame['type']}`, expected one of {names}")
    for name, is_valid in fields.items():
        if name not in frame and (frame["type"], name) not in _MAY_BE_ABSENT:
            raise BadFrame(f"missing field `{name}`")
        if not is_valid(frame.get(name)):
            raise BadFrame(f"invalid type or value: {name} = {frame.get(name)!r}")
    return frame


FIRST_FRAMES: dict[str, tuple[bytes, bool]] = {
    "text": (b'{"type":"auth","token":"","client_version":"0.3.6"}', True),
    "garbage": (b"\x00\xff\x00", False),
    "empty": (b"", False),
    "unknown": (b'{"type":"hello"}', False),
    "register": (
        encode(
            "register_tunnel", request_id="1", protocol="http", subdomain=None, local_addr="a:1"
        ),
        False,
    ),
}
"""What a broken client sends instead of `auth`, and whether as text."""
