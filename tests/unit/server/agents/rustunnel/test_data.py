"""What a data channel passes on."""

from helpers.pair import Reader
from helpers.rustunnel_rig import Client, rustunnel_rig


async def test_messages_pauses_and_the_end_reach_the_session() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        [tunnel] = rig.base.registry.tunnels.values()
        reader = Reader()
        stream = client.session.open_stream(tunnel, reader, "203.0.113.9:1")
        await data.settle()
        [(far, _)] = data.side.opened.values()

        far.write(b"hello")
        await data.settle()
        assert reader.data == b"hello"
        data.channel.pause_writing()
        stream.write(b"later")
        assert stream.queued_bytes == 5
        data.channel.resume_writing()
        await data.settle()
        assert stream.queued_bytes == 0
        data.lose()

        assert len(reader.resets) == 1
