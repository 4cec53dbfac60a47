"""What the sessions share."""

from helpers.rustunnel_rig import Client, rustunnel_rig


async def test_a_session_is_found_by_its_secret_while_it_lives() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        assert rig.shared.by_secret == {client.secret: client.session}

        client.lose()

        assert rig.shared.by_secret == {}


async def test_all_sessions_share_one_receive_budget() -> None:
    async with rustunnel_rig() as rig:
        assert rig.shared.budget is rig.shared.flow.budget
