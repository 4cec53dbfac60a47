"""One session of a rustunnel client: its channels, its streams, how it ends."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from helpers.pair import Reader
from helpers.rustunnel_rig import Client, Data, RustunnelRig, make_request, rustunnel_rig
from helpers.waiting import until
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.live import Tunnel
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.rustunnel import messages
from moleport_wire.yamux.frames import DATA, GO_AWAY, RST, SYN, serialize
from moleport_wire.yamux.mux import MAX_STREAMS, MAX_UNACKNOWLEDGED, MAX_WAITING

VISITOR = "203.0.113.9:4711"


def only_tunnel(rig: RustunnelRig) -> Tunnel:
    [tunnel] = rig.base.registry.tunnels.values()
    return tunnel


class Held:
    """A visitor who waits for the agent."""

    def __init__(self, rig: RustunnelRig, tunnel: Tunnel) -> None:
        self.returned: bool | None = None
        assert rig.base.registry.holds.join(tunnel, self)

    def hold_ended(self, *, returned: bool) -> None:
        self.returned = returned


# Streams


async def test_a_stream_is_announced_with_the_id_that_it_starts_with() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)

        stream = client.session.open_stream(only_tunnel(rig), Reader(), VISITOR)
        stream.write(b"GET / HTTP/1.1\r\n\r\n")
        before = len(data.transport.sent)
        await data.settle()

        announced = await client.hear(messages.NewConnection)
        assert (announced.client_addr, announced.protocol) == (VISITOR, "http")
        [(_, reader)] = data.side.opened.values()
        assert UUID(bytes=bytes(reader.data[:16])) == announced.conn_id
        assert reader.data[16:] == b"GET / HTTP/1.1\r\n\r\n"
        # SYN, id and the first bytes of the request in one message.
        assert len(data.transport.sent) - before == 1


async def test_a_visitor_without_an_address_has_one_that_the_client_can_read() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig, protocol="tcp", subdomain=None)

        client.session.open_stream(only_tunnel(rig), Reader(), "")
        await data.settle()

        announced = await client.hear(messages.NewConnection)
        assert (announced.client_addr, announced.protocol) == ("0.0.0.0:0", "tcp")


async def test_bytes_pass_both_ways_and_ends_with_them() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        reader = Reader()
        stream = client.session.open_stream(only_tunnel(rig), reader, VISITOR)
        await data.settle()
        [(far, far_reader)] = data.side.opened.values()

        stream.write(b"question")
        stream.write_eof()
        far.write(b"answer")
        far.write_eof()
        await data.settle()

        assert (bytes(far_reader.data[16:]), far_reader.eofs) == (b"question", 1)
        assert (bytes(reader.data), reader.eofs) == (b"answer", 1)
        assert client.session.open_streams == 0


async def test_a_reset_before_an_answer_is_a_refusal_of_the_service() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        reader = Reader()
        client.session.open_stream(only_tunnel(rig), reader, VISITOR)
        await data.settle()

        data.channel.message_received(serialize(DATA, RST, 1))

        assert [code for code, _ in reader.resets] == [Code.REFUSED]


async def test_streams_above_what_the_client_can_hold_wait_and_are_bounded() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        session, tunnel = client.session, only_tunnel(rig)
        streams = [
            session.open_stream(tunnel, Reader(), VISITOR) for _ in range(MAX_UNACKNOWLEDGED)
        ]
        assert not session.is_crowded

        waiting = [session.open_stream(tunnel, Reader(), VISITOR) for _ in range(MAX_WAITING)]

        assert session.is_crowded
        assert session.open_streams == MAX_UNACKNOWLEDGED + MAX_WAITING
        with pytest.raises(UpstreamBusy):
            session.open_stream(tunnel, Reader(), VISITOR)
        await data.settle()
        assert len(data.side.opened) == MAX_UNACKNOWLEDGED
        assert sum(isinstance(m, messages.NewConnection) for m in client.heard) == len(streams)
        streams[0].reset(Code.CANCEL)
        await data.settle()
        assert not waiting[0].is_waiting


async def test_the_stream_that_waited_longest_is_given_to_its_tunnel_and_to_no_other() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        await client.register("other")
        shop, other = rig.base.registry.tunnels.values()
        session = client.session
        for _ in range(MAX_UNACKNOWLEDGED):
            session.open_stream(shop, Reader(), VISITOR)
        first, second = Reader(), Reader()
        session.open_stream(shop, first, VISITOR).write(b"request")
        session.open_stream(other, second, VISITOR)

        assert session.take_waiting(other) is None
        taken = session.take_waiting(shop)

        assert taken == (first, [b"request"], False)
        assert first.resets == []
        assert session.take_waiting(shop) is None
        assert session.take_waiting(other) == (second, [], False)
        assert session.take_waiting(other) is None
        assert not session.is_crowded
        data.lose()
        assert session.take_waiting(shop) is None


async def test_idle_streams_are_given_up_for_those_that_wait() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        left: list[Tunnel] = []
        rig.base.registry.notices.on_agent_left = left.append
        session, tunnel = client.session, only_tunnel(rig)
        for _ in range(MAX_UNACKNOWLEDGED):
            session.open_stream(tunnel, Reader(), VISITOR)
        assert left == []

        session.open_stream(tunnel, Reader(), VISITOR)

        assert left == [tunnel]


async def test_no_stream_opens_while_slow_readers_hold_all_memory() -> None:
    budget = ReceiveBudget(1 << 20, 1 << 18)
    async with rustunnel_rig(budget=budget) as rig:
        client, _ = await Client.serving(rig)
        budget.held_bytes = budget.limit_bytes

        with pytest.raises(UpstreamBusy):
            client.session.open_stream(only_tunnel(rig), Reader(), VISITOR)
        budget.held_bytes = 0


async def test_streams_of_the_client_are_refused() -> None:
    async with rustunnel_rig() as rig:
        _, data = await Client.serving(rig)

        data.channel.message_received(serialize(DATA, SYN, 2))
        await asyncio.sleep(0)

        assert serialize(DATA, RST, 2) in data.transport.sent


# The data channel


async def test_nothing_is_said_unasked_before_the_first_data_channel() -> None:
    async with rustunnel_rig(ping_seconds=0.01, tick_seconds=0.01) as rig:
        client = rig.client()
        await client.log_in()
        await client.register()
        tunnel = only_tunnel(rig)
        held = Held(rig, tunnel)

        with pytest.raises(NoSession):
            client.session.open_stream(tunnel, Reader(), VISITOR)
        assert not await client.session.is_alive(0.05)
        assert [type(m) for m in client.heard] == [messages.AuthOk, messages.TunnelRegistered]

        client.attach()
        await until(lambda: held.returned)
        await client.hear(messages.Ping)


async def test_a_client_without_a_data_channel_is_cut_off() -> None:
    async with rustunnel_rig(attach_seconds=0.3) as rig:
        client = rig.client()
        await client.log_in()
        await client.register()

        await until(lambda: client.transport.is_aborted)

        assert only_tunnel(rig).session is None
        assert only_tunnel(rig).may_hold
        assert not rig.shared.by_secret


async def test_a_tunnel_that_comes_behind_the_data_channel_is_served_at_once() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)

        second = await client.register("other")

        tunnel = rig.base.registry.tunnels[second.tunnel_id]
        client.session.open_stream(tunnel, Reader(), VISITOR)
        await data.settle()
        assert len(data.side.opened) == 1


@pytest.mark.parametrize("how", ["lost", "garbage", "goaway"])
async def test_a_lost_data_channel_ends_its_streams_and_the_next_serves_again(how: str) -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        tunnel, reader = only_tunnel(rig), Reader()
        client.session.open_stream(tunnel, reader, VISITOR)

        if how == "lost":
            data.lose()
        elif how == "garbage":
            data.channel.message_received(b"\x01" * 12)
        else:
            data.channel.message_received(serialize(GO_AWAY, 0, 0))

        assert [code for code, _ in reader.resets] == [Code.STREAM_CLOSED]
        assert data.transport.is_aborted
        assert client.session.record.connections == 1
        with pytest.raises(NoSession):
            client.session.open_stream(tunnel, Reader(), VISITOR)
        held = Held(rig, tunnel)
        again = client.attach()
        await until(lambda: held.returned)
        client.session.open_stream(tunnel, Reader(), VISITOR)
        await again.settle()
        assert list(again.side.opened) == [1]
        assert not client.transport.is_over


async def test_the_newest_data_channel_wins() -> None:
    async with rustunnel_rig() as rig:
        client, first = await Client.serving(rig)

        second = client.attach()
        await second.settle()
        first.lose()

        assert first.transport.is_aborted
        client.session.open_stream(only_tunnel(rig), Reader(), VISITOR)
        await second.settle()
        assert len(second.side.opened) == 1


async def test_a_data_channel_for_a_session_that_just_ended_is_dropped() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        session = client.session
        client.lose()

        data = Data(session, client.peer)

        assert data.transport.is_aborted
        data.channel.message_received(b"x")
        data.channel.pause_writing()
        data.channel.resume_writing()


# Messages


async def test_pings_are_answered_and_pongs_are_measured() -> None:
    async with rustunnel_rig(ping_seconds=0.01, tick_seconds=0.01) as rig:
        client, data = await Client.serving(rig)

        client.say(messages.Ping(timestamp=2**64 - 1))
        assert await client.hear(messages.Pong) == messages.Pong(timestamp=2**64 - 1)
        ping = await client.hear(messages.Ping)
        rig.base.clock.advance(0.25)
        client.say(messages.Pong(timestamp=ping.timestamp))

        assert rig.rtts == [0.25]
        await until(lambda: data.transport.pings)


async def test_an_answer_to_a_ping_proves_that_the_client_is_there() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)

        async with asyncio.TaskGroup() as group:
            asked = group.create_task(client.session.is_alive(1.0))
            client.say(messages.Pong(timestamp=(await client.hear(messages.Ping)).timestamp))

        assert asked.result()


async def test_a_declined_peer_to_peer_connection_says_why() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)

        client.say(messages.P2pConnect(request_id="p-1", target_tunnel_name="x", secret_hash="y"))

        error = await client.hear(messages.P2pError)
        assert (error.request_id, error.message) == (
            "p-1",
            "P2P tunnels are not enabled on this server",
        )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b'{"type":"frobnicate"}',
        b'{"type":"ping","timestamp":-1}',
        messages.Auth(token="x", client_version="1"),
        messages.AuthOk(session_id=UUID(int=1), server_version="1"),
        messages.DataStreamOpen(conn_id=UUID(int=1)),
        messages.TunnelUnhealthy(tunnel_id=UUID(int=1), reason="x"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_ignored(message: Any) -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        before = len(client.heard)

        client.say(message)
        client.say(messages.Ping(timestamp=1))

        assert client.heard[before:] == [messages.Pong(timestamp=1)]


async def test_a_registration_that_cannot_be_read_is_answered() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)

        client.say(b'{"type":"register_tunnel","request_id":"r-7","protocol":7}')

        error = await client.hear(messages.TunnelError)
        assert (error.request_id, error.message) == ("r-7", "unsupported protocol")


# Ending


@pytest.mark.parametrize(
    ("close_code", "is_held"), [(1005, False), (1000, False), (1001, True), (None, True)]
)
async def test_only_a_goodbye_of_the_client_itself_sends_its_visitors_away(
    close_code: int | None, is_held: bool
) -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        reader = Reader()
        client.session.open_stream(only_tunnel(rig), reader, VISITOR)

        client.lose(close_code)

        tunnel = only_tunnel(rig)
        assert (tunnel.session, tunnel.may_hold) == (None, is_held)
        assert len(reader.resets) == 1
        assert data.transport.is_aborted
        assert not rig.base.registry.sessions
        assert not rig.shared.by_secret
        assert rig.shared.budget.committed_bytes == 0


async def test_a_silent_client_is_dropped_and_held_for() -> None:
    async with rustunnel_rig(ping_seconds=0.05, silence_seconds=0.5, tick_seconds=0.05) as rig:
        client, _ = await Client.serving(rig)

        await until(lambda: client.transport.is_aborted)

        assert only_tunnel(rig).session is None
        assert only_tunnel(rig).may_hold


async def test_a_silent_data_channel_is_dropped_alone() -> None:
    # The client speaks in time even if this process has to wait for its turn.
    async with rustunnel_rig(ping_seconds=0.05, silence_seconds=1.0, tick_seconds=0.05) as rig:
        client, data = await Client.serving(rig)

        async with asyncio.timeout(20):
            while not data.transport.is_aborted:
                client.say(messages.Ping(timestamp=1))
                await asyncio.sleep(0.005)

        assert not client.transport.is_over


async def test_a_data_channel_whose_client_does_not_answer_pings_of_yamux_is_dropped_alone() -> (
    None
):
    # The client speaks in time even if this process has to wait for its turn.
    async with rustunnel_rig(ping_seconds=9.0, silence_seconds=1.0, tick_seconds=0.05) as rig:
        client, data = await Client.serving(rig)
        [tunnel] = client.session.record.tunnels.values()
        for _ in range(MAX_STREAMS // 4):
            client.session.open_stream(tunnel, Reader(), "").reset(Code.CANCEL)

        async with asyncio.timeout(20):
            while not data.transport.is_aborted:
                client.say(messages.Ping(timestamp=1))
                await asyncio.sleep(0.005)

        assert not client.transport.is_over
        # The next one begins anew, with all places.
        again = client.attach()
        stream = client.session.open_stream(tunnel, Reader(), "")
        assert not stream.is_waiting
        await again.settle()


async def test_a_session_that_was_closed_for_good_closes_its_client() -> None:
    async with rustunnel_rig(linger_seconds=0.01) as rig:
        client, data = await Client.serving(rig)
        record = client.session.record

        await rig.base.registry.close_session(record, "closed through the API")

        assert client.transport.closed_with == (1000, "closed through the API")
        assert not client.transport.is_aborted
        # A client that meets the end of its data channel first takes all of it for a loss.
        assert not data.transport.is_aborted
        client.lose(1000)
        client.say(messages.Ping(timestamp=1))
        assert not rig.base.registry.tunnels
        assert rig.shared.budget.committed_bytes == 0
        await until(lambda: data.transport.is_aborted)


async def test_a_server_that_ends_aborts_its_clients_so_that_they_come_back() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        client.session.drain("the server is restarting", 30.0)
        assert not client.transport.is_over

        rig.base.registry.close("the server is restarting")

        assert client.transport.is_aborted
        assert client.transport.closed_with is None
        assert data.transport.is_aborted


async def test_a_session_that_drains_keeps_no_idle_streams() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        left: list[Tunnel] = []
        rig.base.registry.notices.on_agent_left = left.append
        session, tunnel = client.session, only_tunnel(rig)
        stream = session.open_stream(tunnel, Reader(), VISITOR)

        await rig.base.registry.close_session(session.record, "bye", drain_seconds=5.0)

        assert left == [tunnel]
        assert session.is_crowded
        assert not client.transport.is_over
        # Visitors are served until the last stream has ended.
        session.open_stream(tunnel, Reader(), VISITOR).reset(Code.CANCEL)
        stream.reset(Code.CANCEL)
        await data.settle()
        await until(lambda: client.transport.closed_with)


async def test_a_client_ends_with_its_last_tunnel_and_not_before() -> None:
    async with rustunnel_rig() as rig:
        client, _ = await Client.serving(rig)
        await client.register("other")
        first, second = list(rig.base.registry.tunnels.values())

        await rig.base.registry.close_tunnel(first, "deleted")
        assert not client.transport.is_over
        await rig.base.registry.close_tunnel(second, "deleted")

        assert client.transport.closed_with == (1000, "deleted")
        assert not rig.base.registry.sessions


async def test_the_same_name_from_the_same_machine_replaces_the_dead_session() -> None:
    async with rustunnel_rig() as rig:
        old, _ = await Client.serving(rig)
        tunnel = only_tunnel(rig)

        new, data = await Client.serving(rig, peer="192.0.2.7:6000")

        assert only_tunnel(rig) is tunnel
        assert tunnel.session is new.session.record
        assert old.transport.closed_with is not None
        client_stream = new.session.open_stream(tunnel, Reader(), VISITOR)
        await data.settle()
        assert client_stream.is_open


async def test_a_client_that_lives_elsewhere_is_replaced_once_and_then_keeps_its_name() -> None:
    async with rustunnel_rig() as rig:
        clients = [await Client.serving(rig)]
        for peer in ("198.51.100.1:1", "198.51.100.2:1"):
            new = rig.client(peer)
            await new.log_in()
            new.say(make_request("shop"))
            owner, _ = clients[-1]
            ping = await owner.hear(messages.Ping)
            owner.say(messages.Pong(timestamp=ping.timestamp))
            await until(lambda: len(new.heard) == 2)  # noqa: B023 - called before the next round
            clients.append((new, new.attach()))

        (first, _), (second, _), (third, _) = clients
        assert first.transport.closed_with is not None
        assert only_tunnel(rig).session is second.session.record
        assert (await third.hear(messages.TunnelError)).message == (
            "tunnel error: subdomain 'shop' is already in use"
        )


async def test_ids_that_are_used_up_renew_the_data_channel() -> None:
    async with rustunnel_rig() as rig:
        client, data = await Client.serving(rig)
        assert client.session._data is not None
        client.session._data.mux._next_id = 2**32 + 1

        with pytest.raises(UpstreamBusy):
            client.session.open_stream(only_tunnel(rig), Reader(), VISITOR)

        await until(lambda: data.transport.is_aborted)
        assert not client.transport.is_over


async def test_water_marks_reach_the_port() -> None:
    async with rustunnel_rig(write_buffer_bytes=1000) as rig:
        client, data = await Client.serving(rig)
        assert data.transport.limit == 1000
        data.transport.buffered_bytes = 700
        client.transport.buffered_bytes = 7

        assert client.session.buffered_bytes == 707
        data.channel.pause_writing()
        stream = client.session.open_stream(only_tunnel(rig), Reader(), VISITOR)
        stream.write(b"x" * 100)
        assert stream.queued_bytes == 100
        data.transport.buffered_bytes = 0
        data.channel.resume_writing()
        await data.settle()
        assert stream.queued_bytes == 0
