"""Defaults of the bounds."""

from typing import Any

import pytest

from moleport_server.config import schema

BOUNDED = ("limits", "flow", "hold", "capture")


@pytest.mark.parametrize(
    "key", [key for key in schema.keys().values() if key.section in BOUNDED], ids=lambda k: k.path
)
def test_the_default_is_within_its_own_bounds(key: Any) -> None:
    assert key.parse(key.default, is_text=False) == key.default


@pytest.mark.parametrize(
    "path", ["limits.head_bytes", "flow.stream_window_bytes", "hold.total", "capture.body_bytes"]
)
def test_a_negative_bound_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="at least"):
        schema.keys()[path].parse(-1, is_text=False)
