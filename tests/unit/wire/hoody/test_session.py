import pytest

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import SKIPPED_TYPES, Code
from moleport_wire.hoody.session import Phase, Role, is_receivable
from moleport_wire.reference import FRAMES, number_of

KIT, DRIVER = Role.KIT, Role.DRIVER
BASE_AND_NEW = sorted({number_of(name) for name in FRAMES} | {0x00, 0x7F, 0x80, 0xFF})
LIVE = {"PING", "PONG", "GOAWAY"}
HANDLED = {
    (KIT, Phase.NEW): {"HELLO", "JOIN"},
    (KIT, Phase.GREETED): {"GOAWAY"},
    (KIT, Phase.LIVE): {"BIND", "UNBIND", "REAUTH"} | LIVE,
    (KIT, Phase.ENDED): set(),
    (DRIVER, Phase.NEW): {"GOAWAY"},
    (DRIVER, Phase.GREETED): {"HELLO_OK", "JOIN_OK", "JOIN_ERR", "GOAWAY", "PING"},
    (DRIVER, Phase.LIVE): {
        "BIND_OK",
        "BIND_ERR",
        "UNBIND_OK",
        "UNBIND_ERR",
        "BIND_REVOKED",
        "REAUTH_OK",
        "REAUTH_ERR",
        "DRAIN",
        "REPORT",
        "SHARD_MAP",
        "REISSUE_JOIN_TICKETS",
    }
    | LIVE,
    (DRIVER, Phase.ENDED): set(),
}


@pytest.mark.parametrize("frame_type", BASE_AND_NEW, ids=lambda number: f"0x{number:02x}")
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("role", Role)
def test_each_frame_is_handled_skipped_or_refused(
    role: Role, phase: Phase, frame_type: int
) -> None:
    if frame_type in {number_of(name) for name in HANDLED[role, phase]}:
        assert is_receivable(role, phase, frame_type)
    elif phase is Phase.ENDED or frame_type in SKIPPED_TYPES:
        assert not is_receivable(role, phase, frame_type)
    else:
        with pytest.raises(RemoteProtocolError, match=f"0x{frame_type:02x} in phase") as caught:
            is_receivable(role, phase, frame_type)
        assert caught.value.code == Code.PROTOCOL_ERROR


def test_neither_role_takes_what_it_sends_itself() -> None:
    to_kit = {name for name, row in FRAMES.items() if row.direction == "D→K"}
    to_driver = {name for name, row in FRAMES.items() if row.direction == "K→D"}

    for phase in Phase:
        assert not HANDLED[KIT, phase] & to_driver
        assert not HANDLED[DRIVER, phase] & to_kit


def test_stream_frames_are_never_control_frames() -> None:
    for phase in (Phase.NEW, Phase.GREETED, Phase.LIVE):
        for role in Role:
            for frame_type in (frames.DATA, frames.EOF, frames.RESET, frames.STREAM_OPEN):
                with pytest.raises(RemoteProtocolError):
                    is_receivable(role, phase, frame_type)
