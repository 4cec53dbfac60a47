"""When a stream may be used again: the rules that keep answers from reaching the wrong visitor."""

import pytest

from helpers.edge_rig import EdgeRig, edge_rig, get, post
from helpers.upstream import ScriptedUpstream, SeenRequest, answer
from helpers.waiting import until
from moleport_server.edge.pool import FRESH_SECONDS, IDLE_SECONDS, MAX_IDLE_PER_TUNNEL
from moleport_server.registry.upstream import WaitingStream
from moleport_wire.hoody.frames import Code


async def served(rig: EdgeRig, request: bytes = b"") -> int:
    """Let a new visitor make a request; return how many streams there are now."""
    async with rig.visitor() as visitor:
        visitor.send(request or get())
        await visitor.answer()
    return len(rig.upstream.streams)


async def test_a_stream_serves_one_visitor_after_the_other() -> None:
    async with edge_rig() as rig:
        assert [await served(rig) for _ in range(3)] == [1, 1, 1]
        assert rig.edge.pool.idle_count == 1


async def test_a_request_with_a_body_leaves_its_stream_usable() -> None:
    async with edge_rig() as rig:
        assert await served(rig, post(b"milk")) == 1
        assert await served(rig) == 1


async def test_a_stream_is_not_kept_while_others_wait_for_its_end() -> None:
    async with edge_rig() as rig:
        rig.upstream.is_crowded = True
        assert await served(rig) == 1

        assert rig.edge.pool.idle_count == 0
        assert rig.upstream.streams[0].reset_code == Code.CANCEL
        rig.upstream.is_crowded = False
        assert [await served(rig) for _ in range(2)] == [2, 2]


async def test_an_idle_stream_serves_the_request_that_waits_for_one() -> None:
    async with edge_rig(ScriptedUpstream(respond=lambda _: None)) as rig:
        async with rig.visitor() as first, rig.visitor() as second:
            first.send(get("/first"))
            await until(lambda: rig.upstream.requests)
            second.send(get("/second"))
            await until(lambda: len(rig.upstream.requests) == 2)
            served, waiting = rig.upstream.streams
            # As if the second had waited: nobody but the pool has seen its bytes.
            rig.upstream.is_crowded = True
            rig.upstream.waiting = WaitingStream(waiting.receiver, [bytes(waiting.written)], True)
            waiting.is_lost = True

            served.send(answer(b"1"))
            assert (await first.answer()).body == b"1"
            rig.upstream.is_crowded = False
            await until(lambda: len(served.requests) == 2)
            served.send(answer(b"2"))

            assert (await second.answer()).body == b"2"
        assert [request.target for request in served.requests] == ["/first", "/second"]
        assert rig.edge.pool.idle_count == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(answer(fields="Connection: close\r\n"), id="the service closes"),
        pytest.param(answer().replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0 without keep-alive"),
        pytest.param(answer() + b"x", id="a byte left over"),
        pytest.param(answer() + answer(), id="an answer left over"),
        pytest.param(answer(b"x" * 100_000) + b"left over", id="bytes behind a large body"),
    ],
)
async def test_a_stream_with_an_unclean_end_is_not_used_again(raw: bytes) -> None:
    async with edge_rig(ScriptedUpstream(respond=lambda _: raw)) as rig:
        assert await served(rig) == 1

        assert rig.edge.pool.idle_count == 0
        assert rig.upstream.streams[0].reset_code == Code.CANCEL
        assert await served(rig) == 2


@pytest.mark.parametrize(("extra", "is_reusable"), [(b"", True), (b"left over", False)])
async def test_a_large_body_that_comes_in_pieces_passes_whole(
    extra: bytes, is_reusable: bool
) -> None:
    body = bytes(range(256)) * 1200
    async with (
        edge_rig(ScriptedUpstream(respond=lambda _: None)) as rig,
        rig.visitor() as visitor,
    ):
        visitor.send(get())
        await until(lambda: rig.upstream.requests)
        raw = answer(body) + extra
        for start in range(0, len(raw), 50_000):
            rig.upstream.streams[0].send(raw[start : start + 50_000])

        assert (await visitor.answer()).body == body
        assert rig.edge.pool.idle_count == int(is_reusable)
        recorded = rig.captures.list(rig.tunnel.id, 1)[0].capture
        assert recorded.response_bytes == len(body)
        assert recorded.response_body == body[: 64 * 1024]


async def test_a_body_behind_the_answer_to_head_spoils_the_stream() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get(method="HEAD"))
        reply = await visitor.answer("HEAD")

        assert reply.header("content-length") == "5"
        assert rig.edge.pool.idle_count == 0
        assert rig.upstream.streams[0].reset_code is not None


async def test_bytes_on_an_idle_stream_reset_it() -> None:
    async with edge_rig() as rig:
        await served(rig)

        rig.upstream.streams[0].send(answer(b"for nobody"))

        assert rig.upstream.streams[0].reset_code == Code.PROTOCOL_ERROR
        assert rig.edge.pool.idle_count == 0
        assert await served(rig) == 2


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_service_that_hangs_up_on_an_idle_stream_is_noticed(how: str) -> None:
    async with edge_rig() as rig:
        await served(rig)
        stream = rig.upstream.streams[0]

        if how == "eof":
            stream.send_eof()
            assert stream.has_eof
        else:
            stream.lose(Code.CANCEL)

        assert rig.edge.pool.idle_count == 0
        assert await served(rig) == 2


async def test_only_idempotent_requests_take_a_stream_that_was_idle_for_long() -> None:
    async with edge_rig() as rig:
        await served(rig)
        rig.clock.advance(FRESH_SECONDS + 0.5)

        assert await served(rig, post(b"milk")) == 2
        rig.clock.advance(FRESH_SECONDS / 2)
        assert await served(rig, post(b"milk")) == 2
        rig.clock.advance(FRESH_SECONDS + 0.5)
        assert await served(rig, post(b"milk", method="PUT")) == 2


async def test_the_most_recently_used_stream_is_taken_first() -> None:
    held: list[SeenRequest] = []

    def respond(seen: SeenRequest) -> bytes | None:
        if seen.target == "/wait":
            held.append(seen)
            return None
        return answer()

    async with edge_rig(ScriptedUpstream(respond=respond)) as rig, rig.visitor() as visitor:
        visitor.send(get("/wait"))
        await until(lambda: held)
        await served(rig)
        first, second = rig.upstream.streams
        first.send(answer())
        await visitor.answer()

        await served(rig, get("/third"))

        assert [r.target for r in first.requests] == ["/wait", "/third"]
        assert len(second.requests) == 1


async def test_streams_that_were_idle_for_too_long_are_closed() -> None:
    async with edge_rig() as rig:
        await served(rig)

        rig.pass_time(IDLE_SECONDS - 1)
        assert rig.edge.pool.idle_count == 1
        rig.pass_time(2)

        assert rig.edge.pool.idle_count == 0
        assert rig.upstream.streams[0].reset_code == Code.CANCEL


async def test_streams_of_an_agent_that_left_are_forgotten() -> None:
    async with edge_rig() as rig:
        await served(rig)

        rig.lose_agent()

        assert rig.edge.pool.idle_count == 0


async def test_a_pool_is_bounded() -> None:
    async with edge_rig() as rig:
        await served(rig)
        pool = rig.edge.pool
        (first,) = pool._idle[rig.tunnel]

        for _ in range(MAX_IDLE_PER_TUNNEL):
            connection = type(first)(rig.tunnel, pool.forget, pool.known_lines)
            connection.stream = rig.upstream.open_stream(rig.tunnel, connection, "")
            pool.put(connection, 0.0)

        assert pool.idle_count == MAX_IDLE_PER_TUNNEL
        assert rig.upstream.streams[0].reset_code == Code.CANCEL


async def test_forgetting_a_stream_twice_is_harmless() -> None:
    async with edge_rig() as rig:
        await served(rig)
        (connection,) = rig.edge.pool._idle[rig.tunnel]

        rig.edge.pool.forget(connection)
        rig.edge.pool.forget(connection)
        rig.edge.pool.drop(rig.tunnel, "gone")

        assert rig.edge.pool.idle_count == 0
