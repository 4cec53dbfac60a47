import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.edge_rig import edge_rig, get
from helpers.upstream import ScriptedUpstream, SeenRequest, answer
from helpers.visitor import Answer
from moleport_server.edge.known_heads import (
    KNOWN_HEADS,
    KNOWN_LINES,
    KNOWN_REQUESTS,
    SHARED_BLOCK_BYTES,
    AnswerLines,
    KnownRequests,
    RequestTemplate,
)

HEAD = b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"


def template(block: bytes) -> RequestTemplate:
    return RequestTemplate(
        block,
        host=b"a",
        hostname="a",
        lines=[],
        named=None,
        accept=None,
        authorization=None,
    )


def test_an_answer_is_read_only_when_every_line_was_accepted_before() -> None:
    known = AnswerLines()
    assert known.read(HEAD + b"hello") is None

    known.learn(HEAD + b"hello")
    head = known.read(HEAD + b"hello")

    assert head is not None
    assert (head.status, head.length) == (200, 5)
    assert head.block == b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Length: 5\r\n"
    assert known.read(HEAD) is head
    assert head.end == len(HEAD)
    assert known.read(HEAD.replace(b"Server: test", b"Server: tesT")) is None


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close",
        b"Connection: keep-alive, X-Secret",
        b"Transfer-Encoding: chunked",
        b"Upgrade: websocket",
        b"Trailer: X-A",
        b"Set-Cookie: session=secret",
        b"X-Long: " + b"x" * 300,
    ],
)
def test_a_head_with_a_line_that_matters_always_goes_to_the_parser(line: bytes) -> None:
    known = AnswerLines()
    head = HEAD.replace(b"Server: test", line)

    known.learn(head)

    assert known.read(head) is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: test\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5",
    ],
    ids=["204", "304", "103", "1.0", "no length", "two lengths", "incomplete"],
)
def test_a_head_without_one_plain_framing_always_goes_to_the_parser(head: bytes) -> None:
    known = AnswerLines()

    known.learn(head)

    assert known.read(head) is None


def test_the_memory_of_lines_is_bounded() -> None:
    known = AnswerLines()

    for number in range(3 * KNOWN_LINES):
        known.learn(b"HTTP/1.1 200 OK\r\nX-N: %d\r\nContent-Length: 0\r\n\r\n" % number)
        assert known.read(b"HTTP/1.1 200 OK\r\nX-N: %d\r\nContent-Length: 0\r\n\r\n" % number)
        assert len(known._lines) <= KNOWN_LINES
        assert len(known._heads) <= KNOWN_HEADS


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", (b"GET", b"/a?b=c")),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", (b"HEAD", b"/")),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", None),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", None),
        (b"GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n", None),
        (b"\r\nHost: a\r\n\r\n", None),
    ],
)
def test_only_one_whole_request_with_the_same_fields_repeats_a_template(
    data: bytes, expected: tuple[bytes, bytes] | None
) -> None:
    match = template(b"\r\nHost: a\r\n\r\n").match(data)

    assert (match and match.groups()) == expected


@given(st.binary(max_size=80))
def test_garbage_before_the_fields_never_repeats_a_template(garbage: bytes) -> None:
    match = template(b"\r\nHost: a\r\n\r\n").match(garbage + b"\r\nHost: a\r\n\r\n")

    if match is not None:
        assert garbage == b"%b %b HTTP/1.1" % match.groups()


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"hello", fields="Server: test\r\nConnection: keep-alive\r\n"),
        answer(b"", fields="X-Request-Id: theirs\r\n", status="404 Not Found"),
        answer(b"x" * 50_000, fields="Server: test\r\n"),
        answer(b"hello", fields="Connection: close\r\n"),
        b"HTTP/1.1 204 No Content\r\nServer: test\r\n\r\n",
    ],
    ids=["plain", "own id", "large", "closing", "204"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_repeated_requests_and_answers_are_the_same_as_parsed_ones(
    raw: bytes, method: str
) -> None:
    def respond(_: SeenRequest) -> bytes:
        end = raw.index(b"\r\n\r\n") + 4
        return raw[:end] if method == "HEAD" else raw

    async with edge_rig(ScriptedUpstream(respond=respond)) as rig, rig.visitor() as visitor:
        answers: list[Answer] = []
        for _ in range(4):
            visitor.send(get("/", "Accept: text/x", "X-A: b", method=method))
            answers.append(await visitor.answer(method))

        requests = rig.upstream.requests
        assert [r.target for r in requests] == ["/"] * 4
        fields = [[f for f in r.headers if f[0].lower() != "x-request-id"] for r in requests]
        assert all(one == fields[0] for one in fields)
        assert len({r.header("x-request-id") for r in requests}) == 4
        assert {(a.status, a.body) for a in answers} == {(answers[0].status, answers[0].body)}
        shown = [[f for f in a.headers if f[0].lower() != "x-request-id"] for a in answers]
        assert all(sorted(one) == sorted(shown[0]) for one in shown)


def test_connections_share_fields_of_requests_that_say_the_same() -> None:
    known = KnownRequests()
    learned = template(b"\r\nHost: a\r\nAccept: x\r\n\r\n")
    known.learn(learned)

    assert known.find(b"GET /b HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n") is learned
    assert known.find(b"GET /b HTTP/1.1\r\nHost: b\r\nAccept: x\r\n\r\n") is None
    assert known.find(b"GET /b HTTP/1.1") is None


@pytest.mark.parametrize(
    "field",
    [
        b"Cookie: a=b",
        b"X-Auth-Token: b",
        b"x-api-key: b",
        b"AUTHORIZATION: Basic YTpi",
        b"X-A: " + b"b" * SHARED_BLOCK_BYTES,
    ],
    ids=["cookie", "token", "key", "authorization", "too long"],
)
def test_what_could_be_a_secret_stays_with_its_connection(field: bytes) -> None:
    known = KnownRequests()
    block = b"\r\nHost: a\r\n" + field + b"\r\n\r\n"

    known.learn(template(block))

    assert known.find(b"GET / HTTP/1.1" + block) is None


def test_the_memory_of_requests_is_bounded() -> None:
    known = KnownRequests()

    for number in range(2 * KNOWN_REQUESTS):
        block = b"\r\nHost: a\r\nX-N: %d\r\n\r\n" % number
        known.learn(template(block))
        assert known.find(b"GET / HTTP/1.1" + block) is not None
        assert len(known._templates) <= KNOWN_REQUESTS


async def test_a_visitor_with_known_fields_is_named_by_its_own_address_and_scheme() -> None:
    async with edge_rig() as rig:
        for _ in range(3):
            async with rig.visitor() as visitor:
                visitor.send(get("/", "Accept: text/x"))
                assert (await visitor.answer()).status == 200

        for request in rig.upstream.requests:
            assert request.header("x-forwarded-for") == "127.0.0.1"
            assert request.header("accept") == "text/x"
        assert len({r.header("x-request-id") for r in rig.upstream.requests}) == 3


async def test_visitors_with_the_same_fields_take_turns_and_none_gets_another_ones_address() -> (
    None
):
    async with (
        edge_rig() as rig,
        rig.visitor() as one,
        rig.visitor(local_host="127.0.0.2") as other,
    ):
        for _ in range(3):
            for visitor in (one, other):
                visitor.send(get("/", "Accept: text/x"))
                assert (await visitor.answer()).status == 200

        told = [request.header("x-forwarded-for") for request in rig.upstream.requests]
        assert told == ["127.0.0.1", "127.0.0.2"] * 3
