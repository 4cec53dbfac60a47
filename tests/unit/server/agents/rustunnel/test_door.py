"""Who may open which channel."""

from uuid import uuid4

import pytest

from helpers.rustunnel_rig import Client, RustunnelRig, rustunnel_rig
from moleport_server.agents.rustunnel.door import make_doors
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer

CONTROL = "/_control"
DATA = "/_data/"


def knock(rig: RustunnelRig, path: str) -> tuple[UpgradeAnswer, list[bool]]:
    authenticated: list[bool] = []
    door = make_doors(rig.shared)[DATA if path.startswith(DATA) else CONTROL]
    answer = door.answer(
        Upgrade(path, {}), address="192.0.2.7", on_authenticated=lambda: authenticated.append(True)
    )
    return answer, authenticated


async def test_the_control_channel_is_open_to_everybody_and_promises_nothing() -> None:
    async with rustunnel_rig() as rig:
        answer, authenticated = knock(rig, CONTROL)

        assert answer.receiver is not None
        assert (answer.subprotocol, dict(answer.headers)) == (None, {})
        assert answer.quick_ack
        assert answer.drops_faults
        assert authenticated == []


async def test_nobody_gets_in_while_the_server_ends() -> None:
    async with rustunnel_rig() as rig:
        rig.shared.is_draining = True

        answer, _ = knock(rig, CONTROL)

        # 503 and not 401: the client comes back after it.
        assert (answer.receiver, answer.status) == (None, 503)
        assert b"auth" not in answer.body.lower()


@pytest.mark.parametrize("spelling", ["{}", "{}?x=1", "urn:uuid:{}", "{{{}}}"])
async def test_a_data_channel_is_open_to_who_knows_the_secret(spelling: str) -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)

        answer, authenticated = knock(rig, DATA + spelling.format(client.secret))

        assert answer.receiver is not None
        assert answer.quick_ack
        assert authenticated == [True]


async def test_anybody_else_is_refused_before_the_upgrade() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        gone = client.secret
        visible = client.session.record.id
        client.lose()

        for path in (DATA, f"{DATA}x", f"{DATA}{uuid4()}", f"{DATA}{gone}", f"{DATA}{visible}"):
            answer, authenticated = knock(rig, path)
            assert (answer.receiver, answer.status, authenticated) == (None, 404, [])
