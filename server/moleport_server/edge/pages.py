"""Renders refusals: the complete bytes of an answer that the edge gives by itself.

People get a small page without any outside resource, programs get JSON, as the Accept header asks.
Whatever comes from a visitor is escaped, and nothing secret is ever shown. Answers are prepared
once per kind; only the request id is filled in, because under attack refusals are the hot path.
"""

import json
import re
from functools import lru_cache
from html import escape
from typing import Final, NamedTuple

from moleport_server.edge.refusals import REASON_PHRASES, Refusal, Side

MAX_DETAIL_CHARACTERS: Final = 200
_MAX_ACCEPT_BYTES: Final = 1024
_PREPARED: Final = 512
"""About 2 KiB each."""
_PLACEHOLDER: Final = "\0request-id\0"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_REALM: Final = 'Basic realm="tunnel", charset="UTF-8"'
_HTML_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{status} {title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8885; --bad: #c2410c; --good: #15803d }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 12vh auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem }}
ol {{ display: flex; gap: .5rem; list-style: none; padding: 0; margin: 0 0 1.5rem }}
li {{ flex: 1; border-top: .25rem solid var(--line); padding-top: .25rem; font-size: .8rem }}
.good {{ border-color: var(--good) }}
.bad {{ border-color: var(--bad); font-weight: 600 }}
footer {{ margin-top: 2rem; font: .8rem ui-monospace, monospace; opacity: .7 }}
</style>
</head>
<body>
<h1>{title}</h1>
<ol aria-hidden="true">{steps}</ol>
<p>{happened}</p>{detail}
<p>The problem is with <strong>{side}</strong>. {advice}</p>
<footer>{status} · {code}{request_id}</footer>
</body>
</html>
"""


class _Prepared(NamedTuple):
    head: bytes
    """Up to and with `content-length: `."""
    before: bytes
    after: bytes
    """The body around the request id."""
    without_id: bytes
    """The body when there is none to show."""


def render(
    case: Refusal,
    *,
    accept: bytes | None = None,
    request_id: str = "",
    detail: str = "",
    retry_after: int | None = None,
    is_head: bool = False,
    close: bool = False,
    date: str = "",
) -> bytes:
    """Return a complete HTTP/1.1 response.

    Args:
        case: what happened.
        accept: the Accept header of the visitor.
        request_id: shown to people so that an operator can find the request; dropped if odd.
        detail: one more sentence, for example which limit it was. Cut and escaped here.
        retry_after: seconds until it may work, instead of the usual number of the case.
        is_head: whether the request was HEAD, which gets no body.
        close: whether the connection ends after this answer; the caller then closes it.
        date: the Date header (an HTTP-date of the caller's clock), if it has one.
    """
    detail = "".join(filter(str.isprintable, detail[:MAX_DETAIL_CHARACTERS]))
    prepared = _prepare(
        case, as_html=wants_html(accept), detail=detail, retry_after=retry_after, close=close
    )
    if _REQUEST_ID.fullmatch(request_id):
        body = prepared.before + request_id.encode() + prepared.after
        identity = b"x-request-id: %b\r\n" % request_id.encode()
    else:
        body, identity = prepared.without_id, b""
    if date:
        identity += b"date: %b\r\n" % date.encode("ascii")
    head = b"%b%d\r\n%b\r\n" % (prepared.head, len(body), identity)
    return head if is_head else head + body


def wants_html(accept: bytes | None) -> bool:
    """Whether a page suits the visitor better than JSON.

    HTML has to be asked for by name (`text/html` or `text/*`) at least as much as JSON: `*/*` is
    what programs send.
    """
    if accept is None or len(accept) > _MAX_ACCEPT_BYTES:
        return False
    return _prefers_html(accept)


@lru_cache(maxsize=_PREPARED)
def _prefers_html(accept: bytes) -> bool:
    qualities: dict[str, float] = {}
    for entry in accept.decode("latin-1").lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        qualities[media_range] = _quality(parameters)
    html = qualities.get("text/html", qualities.get("text/*", 0.0))
    anything = qualities.get("*/*", 0.0)
    as_json = qualities.get("application/json", qualities.get("application/*", anything))
    return html > 0 and html >= as_json


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            # Malformed weights count as nothing, rather than as everything.
            return float(parameter[2:]) if re.fullmatch(r"[01](\.\d{0,3})?", parameter[2:]) else 0.0
    return 1.0


@lru_cache(maxsize=_PREPARED)
def _prepare(
    case: Refusal, *, as_html: bool, detail: str, retry_after: int | None, close: bool
) -> _Prepared:
    facts = case.value
    wait = facts.retry_after if retry_after is None else max(retry_after, 1)
    lines = [
        f"HTTP/1.1 {facts.status} {REASON_PHRASES[facts.status]}",
        f"x-moleport-error: {facts.code}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "vary: accept",
    ]
    if wait is not None:
        lines.append(f"retry-after: {wait}")
    if facts.status == 401:
        lines.append(f"www-authenticate: {_REALM}")
    if facts.status == 405:
        # RFC 9110 wants the list; everything but CONNECT is passed on.
        lines.append("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
    if close:
        lines.append("connection: close")
    if as_html:
        lines += [
            "content-type: text/html; charset=utf-8",
            f"content-security-policy: {_HTML_POLICY}",
        ]
        with_id, without_id = _html(case, detail, _PLACEHOLDER), _html(case, detail, "")
        before, _, after = with_id.partition(_PLACEHOLDER)
    else:
        lines.append("content-type: application/json")
        with_id, without_id = _json(case, detail, _PLACEHOLDER), _json(case, detail, "")
        before, _, after = with_id.partition(json.dumps(_PLACEHOLDER)[1:-1])
    head = "\r\n".join([*lines, "content-length: "])
    return _Prepared(head.encode(), before.encode(), after.encode(), without_id.encode())


def _html(case: Refusal, detail: str, request_id: str) -> str:
    facts = case.value
    return _PAGE.format(
        status=facts.status,
        code=facts.code,
        title=escape(facts.title),
        steps=_steps(facts.side),
        happened=escape(facts.happened),
        detail=f"\n<p>{escape(detail)}</p>" if detail else "",
        side=escape(facts.side.value),
        advice=escape(facts.advice),
        request_id=f" · {request_id}" if request_id else "",
    )


def _steps(broken: Side) -> str:
    """Draw the way of a request: fine up to the side that broke it, unknown behind."""
    steps = []
    style = "good"
    for side, name in zip(Side, ("You", "Tunnel server", "Agent", "Service"), strict=True):
        if side is broken:
            steps.append(f'<li class="bad">{name}</li>')
            style = ""
        else:
            steps.append(f'<li class="{style}">{name}</li>' if style else f"<li>{name}</li>")
    return "".join(steps)


def _json(case: Refusal, detail: str, request_id: str) -> str:
    facts = case.value
    fields = {"error": facts.happened, "code": facts.code}
    if detail:
        fields["detail"] = detail
    if request_id:
        fields["request_id"] = request_id
    return json.dumps(fields) + "\n"
