"""`docs/reference/rustunnel.md` says the bounds and texts that the code keeps to."""

import re
from pathlib import Path

import pytest

from moleport_server.agents.rustunnel.control import MAX_MESSAGE_BYTES
from moleport_server.agents.rustunnel.refusals import unsupported_protocol
from moleport_server.agents.rustunnel.registrations import MAX_PENDING
from moleport_server.agents.rustunnel.session import SERVER_RELEASE
from moleport_server.agents.rustunnel.sessions import RustunnelSettings
from moleport_server.registry.addresses import PublicAddresses
from moleport_wire.rustunnel import messages, texts

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "rustunnel.md").read_text("utf-8")
TEXT = re.sub(r"\s+", " ", PAGE)
SETTINGS = RustunnelSettings(addresses=PublicAddresses(scheme="https", port=443, tcp_host="x"))


@pytest.mark.parametrize(
    "sentence",
    [
        f"| `{messages.CONTROL_PATH}` |",
        f"| `{messages.DATA_PATH}{{session}}` |",
        f"within {SETTINGS.first_frame_seconds:g} s",
        f"without one for {SETTINGS.attach_seconds:g} s",
        f"pings every {SETTINGS.ping_seconds:g} s",
        f"silent for {SETTINGS.silence_seconds:g} s",
        f"`server_version` is `{SERVER_RELEASE}+moleport.VERSION`",
        f"the control channel | {MAX_MESSAGE_BYTES // 1024} KiB |",
        f"registrations without an answer | {MAX_PENDING} |",
        f"at most {SETTINGS.stream_seconds:g} s, then 503",
        f"takes no more | {SETTINGS.credit_seconds:g} s |",
    ],
)
def test_the_page_has_the_numbers_of_the_code(sentence: str) -> None:
    assert sentence in TEXT


@pytest.mark.parametrize(
    "text",
    [
        texts.EXPECTED_AUTH,
        texts.INVALID_TOKEN,
        texts.TOO_MANY_FAILURES,
        texts.TOKEN_SUSPENDED,
        texts.TOKEN_EXPIRED,
        texts.NO_TCP_PORTS,
        texts.P2P_DISABLED,
        texts.name_taken("…"),
        texts.name_length("…"),
        texts.name_hyphen("…"),
        texts.name_characters("…"),
        unsupported_protocol("…"),
    ],
)
def test_the_page_has_the_texts_of_the_code(text: str) -> None:
    assert f"`{text}`" in TEXT
