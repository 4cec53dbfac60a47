"""The table of settings."""

import re
from typing import Any

import pytest

from moleport_server.config import schema
from moleport_server.config.settings import ServerSettings

KEYS = list(schema.keys().values())


def test_every_section_and_variable_can_be_told_apart() -> None:
    assert len({key.variable for key in KEYS}) == len(KEYS)
    assert all(re.fullmatch(r"[a-z]+", section) for section in schema.sections())


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_setting_has_words_for_what_it_expects_and_a_default(key: Any) -> None:
    assert key.expectation
    assert schema.value_of(ServerSettings(), key) == key.default


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("limits.head_bytes", "2048", 2048),
        ("limits.idle_seconds", "1.5", 1.5),
        ("capture.enabled", "false", False),
        ("capture.enabled", "1", True),
        ("proxy.proxy_protocol", "edge_http, tcp", ("edge_http", "tcp")),
        ("names.reserved", "", ()),
        ("public.http_port", "", None),
        ("tls.key_file", "", None),
    ],
)
def test_text_of_variables_and_flags_becomes_a_value(path: Any, text: Any, expected: Any) -> None:
    assert schema.keys()[path].parse(text, is_text=True) == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("limits.head_bytes", "2048", "expected whole number at least 1024 and at most 1048576"),
        ("limits.head_bytes", True, "whole number"),
        ("capture.enabled", 1, "expected `true` | `false`"),
        ("log.level", "loud", "expected `debug` | `info` | `warning` | `error`"),
        ("proxy.proxy_protocol", ["x"], "expected list of"),
        ("listen.api", "", "host:port"),
        ("auth.admin_token", "", "must not be empty"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_expected(
    path: Any, value: Any, message: Any
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        schema.keys()[path].parse(value, is_text=False)
