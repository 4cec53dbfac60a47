import json
from html.parser import HTMLParser
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.edge.pages import render, wants_html
from moleport_server.edge.refusals import Refusal

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class _Socket:
    """Gives recorded bytes to the parser of the standard library."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> BytesIO:
        return BytesIO(self._raw)


def parse(raw: bytes, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    response = HTTPResponse(_Socket(raw), method=method)  # type: ignore[arg-type]  # needs makefile only
    response.begin()
    return response, response.read()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("case", Refusal, ids=lambda case: case.code)
@pytest.mark.parametrize("accept", [BROWSER, None], ids=["page", "json"])
def test_each_case_is_a_complete_answer(case: Refusal, accept: bytes | None) -> None:
    raw = render(case, accept=accept, request_id="abc-123")
    response, body = parse(raw)
    header: Any = response.headers

    assert response.status == case.status
    assert header["X-Moleport-Error"] == case.code
    assert header["Cache-Control"] == "no-store"
    assert header["X-Request-Id"] == "abc-123"
    assert int(header["Content-Length"]) == len(body)
    assert raw.endswith(body)
    assert b"abc-123" in body
    assert header["Retry-After"] == (
        None if case.value.retry_after is None else str(case.value.retry_after)
    )
    if accept is None:
        assert json.loads(body) == {
            "error": case.value.happened,
            "code": case.code,
            "request_id": "abc-123",
        }
    else:
        page = _Text()
        page.feed(body.decode())
        for text in (case.value.title, case.value.happened, case.value.side.value):
            assert text in page.text


def test_a_page_marks_the_side_that_failed() -> None:
    body = render(Refusal.AGENT_AWAY, accept=BROWSER).decode()

    assert '<li class="good">Tunnel server</li><li class="bad">Agent</li><li>Service</li>' in body


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(None, False, id="nothing"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b"*/*", False, id="anything"),
        pytest.param(BROWSER, True, id="browser"),
        pytest.param(b"text/*", True, id="any text"),
        pytest.param(b"TEXT/HTML", True, id="upper case"),
        pytest.param(b"application/json", False, id="json"),
        pytest.param(b"application/json, text/html", True, id="both alike"),
        pytest.param(b"application/json, text/html;q=0.9", False, id="json first"),
        pytest.param(b"text/html;q=0.9, application/json;q=0.2", True, id="page first"),
        pytest.param(b"text/html;q=0, */*", False, id="no page"),
        pytest.param(b"text/html; level=1; q=0.5, */*;q=0.1", True, id="parameters"),
        pytest.param(b"text/html;q=nonsense", False, id="malformed weight"),
        pytest.param(b"text/html;q=1e9", False, id="absurd weight"),
        pytest.param(b"text/html," + b"a/b," * 500, False, id="too long"),
        pytest.param(b"\xff\xfe;;;,,,q=", False, id="garbage"),
    ],
)
def test_the_accept_header_chooses(accept: bytes | None, *, expected: bool) -> None:
    assert wants_html(accept) is expected


def test_head_gets_the_same_head_and_no_body() -> None:
    full = render(Refusal.TUNNEL_NOT_FOUND, accept=BROWSER)
    head = render(Refusal.TUNNEL_NOT_FOUND, accept=BROWSER, is_head=True)

    assert head == full[: full.index(b"\r\n\r\n") + 4]
    assert parse(head, method="HEAD")[1] == b""


def test_the_caller_adds_what_only_it_knows() -> None:
    response, body = parse(
        render(
            Refusal.RATE_LIMITED,
            detail="10 requests per second are allowed.",
            retry_after=7,
            close=True,
            date="Sat, 01 Aug 2026 00:00:00 GMT",
        )
    )

    assert response.headers["Retry-After"] == "7"
    assert response.headers["Connection"] == "close"
    assert response.headers["Date"] == "Sat, 01 Aug 2026 00:00:00 GMT"
    assert json.loads(body)["detail"] == "10 requests per second are allowed."
    assert "X-Request-Id" not in response.headers


def test_401_asks_for_basic_authentication() -> None:
    response, _ = parse(render(Refusal.AUTH_REQUIRED))

    assert response.headers["WWW-Authenticate"] == 'Basic realm="tunnel", charset="UTF-8"'


@pytest.mark.parametrize(
    "request_id", ["", "a\r\nset-cookie: x", "<script>", "a b", "é", "x" * 129, "a\n"]
)
def test_an_odd_request_id_is_dropped(request_id: str) -> None:
    raw = render(Refusal.BUSY, accept=BROWSER, request_id=request_id)

    assert raw == render(Refusal.BUSY, accept=BROWSER)


@given(st.text(max_size=300), st.sampled_from([BROWSER, None]))
def test_no_detail_breaks_out_of_its_place(detail: str, accept: bytes | None) -> None:
    raw = render(Refusal.BUSY, accept=accept, detail=detail, request_id="id-1")
    plain = render(Refusal.BUSY, accept=accept, detail="x", request_id="id-1")
    response, body = parse(raw)

    assert response.headers.keys() == parse(plain)[0].headers.keys()
    if accept is None:
        assert json.loads(body)["request_id"] == "id-1"
    else:
        page, expected = _Text(), _Text()
        page.feed(body.decode())
        expected.feed(parse(plain)[1].decode())
        assert [tag for tag in page.tags if tag != "p"] == [
            tag for tag in expected.tags if tag != "p"
        ]


def test_script_in_a_detail_is_shown_and_not_run() -> None:
    body = render(Refusal.BUSY, accept=BROWSER, detail="<script>alert(1)</script>\0request-id\0")

    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body
