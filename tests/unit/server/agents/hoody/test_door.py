"""What an upgrade of the tunnel path has to offer."""

import pytest
from websockets.exceptions import InvalidStatus

from helpers.agent_rig import agent_rig
from helpers.waiting import until


async def test_an_upgrade_without_a_known_subprotocol_is_told_the_known_ones() -> None:
    async with agent_rig() as rig:
        with pytest.raises(InvalidStatus) as refused:
            await rig.driver(subprotocols=["hoody-tunnel.v9"]).__aenter__()

        response = refused.value.response
        assert response.status_code == 400
        assert response.headers["x-hoody-tunnel-versions"] == "hoody-tunnel.v1, hoody-tunnel.v2"
        await until(lambda: rig.gate.waiting == 0)


async def test_the_newest_offered_subprotocol_is_chosen() -> None:
    async with (
        agent_rig() as rig,
        rig.driver(subprotocols=["hoody-tunnel.v1", "x", "hoody-tunnel.v2"]) as driver,
    ):
        assert driver.subprotocol == "hoody-tunnel.v2"
