"""Heads that were seen before: what llhttp accepted once is not parsed a second time.

A visitor on a keep-alive connection sends the same fields with each request, and a service answers with
few different field lines (`Server`, `Content-Type`, one `Date` per second). Parsing them field by field
was most of what a small request cost. So:

* `RequestTemplate` keeps the fields of a connection's last request. If the next one has the very same
  bytes behind its request line, only that line is read.
* `KnownRequests` shares such fields between connections: an ingress sends requests for many hosts over
  each of its own.
* `AnswerLines` keeps field lines of answers, byte by byte as they came, with what they mean. If all lines
  of a head are known, nothing has to be parsed.

Nothing is guessed: a line counts as known only if the very same bytes were part of a head that llhttp
accepted, a field line means the same wherever it stands, and combinations that matter (two lengths, a
transfer coding, an upgrade, a close) always go to the parser.
"""

from __future__ import annotations

import re
from typing import Final

from moleport_server.edge.forwarding import RESPONSE_FIELDS, Field, tokens

KNOWN_LINES: Final = 4096
"""Above this everything is forgotten: lines with dates and lengths come and go."""
KNOWN_HEADS: Final = 512
"""Whole heads, for services that answer the same many times a second."""
KNOWN_REQUESTS: Final = 2048
"""Blocks of request fields that all connections share; more, and everything is forgotten."""
SHARED_BLOCK_BYTES: Final = 512
LINE_BYTES: Final = 256
"""Longer lines (cookies, policies) are rarely repeated and would cost memory."""
UNREPEATED: Final = frozenset({b"set-cookie", b"etag", b"last-modified", b"location"})
"""Fields whose values are one answer's own, or one visitor's secret."""

REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|DELETE|OPTIONS) (/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*) HTTP/1\.1"
)
"""A request line without anything that llhttp would look at twice; methods that have no body here."""

_PERSONAL: Final = re.compile(
    rb"(?i)\r\n[^:\r]*(cookie|auth|token|key|secret|session|password|signature|credential)[^:\r]*:"
)
"""Fields that look like a secret of one visitor."""

PASS: Final = -1
"""A line that is passed on."""
DROP: Final = -2
"""A line that belongs to the connection and says nothing but that it stays open."""
REQUEST_ID: Final = -3
"""A line that is passed on and makes ours superfluous."""
# 0 and above: the line is a Content-Length of that value, passed on.

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: [\t -~]*)?")


class RequestTemplate:
    """What a connection's last bodiless request said besides its method and target."""

    __slots__ = (
        "accept",
        "authorization",
        "block",
        "host",
        "hostname",
        "lines",
        "named",
        "tail",
        "tail_for",
    )

    def __init__(
        self,
        block: bytes,
        *,
        host: bytes,
        hostname: str,
        lines: list[bytes],
        named: frozenset[bytes] | None,
        accept: bytes | None,
        authorization: bytes | None,
    ) -> None:
        self.block = block
        """The bytes from the CRLF of the request line to the empty line."""
        self.host = host
        self.hostname = hostname
        self.lines = lines
        self.named = named
        self.accept = accept
        self.authorization = authorization
        self.tail = b""
        """What the local service gets behind the target, up to the request id."""
        self.tail_for: tuple[object, ...] = ()
        """What `tail` was made for: the tunnel and its settings of that moment, and the visitor."""

    def match(self, data: bytes) -> re.Match[bytes] | None:
        """Return method and target if `data` is one whole request with the same fields."""
        end = data.find(b"\r\n")
        if end < 0 or len(data) - end != len(self.block) or not data.startswith(self.block, end):
            return None
        return REQUEST_LINE.fullmatch(data, 0, end)


class KnownRequests:
    """Fields of requests that come over many connections: of programs, probes and load balancers.

    What a browser sends is its own (cookies), so its connection's template does the same for it; and
    what could be a secret is not kept beyond its connection.
    """

    def __init__(self) -> None:
        self._templates: dict[bytes, RequestTemplate] = {}

    def find(self, data: bytes) -> RequestTemplate | None:
        """Return the template of all connections that say what `data` says, or None."""
        end = data.find(b"\r\n")
        if end < 0 or len(data) - end > SHARED_BLOCK_BYTES:
            return None
        return self._templates.get(data[end:])

    def learn(self, template: RequestTemplate) -> None:
        """Take over the fields of a whole request that llhttp has accepted."""
        block = template.block
        if (
            len(block) > SHARED_BLOCK_BYTES
            or template.authorization is not None
            or _PERSONAL.search(block) is not None
        ):
            return
        if len(self._templates) >= KNOWN_REQUESTS:
            self._templates.clear()
        self._templates[block] = template


class AnswerHead:
    """A head whose lines are all known."""

    __slots__ = ("block", "end", "has_request_id", "length", "status")

    def __init__(
        self,
        status: int,
        status_text: bytes,
        fields: bytes,
        length: int,
        end: int,
        *,
        has_request_id: bool,
    ) -> None:
        self.status = status
        self.block = b"HTTP/1.1 %b\r\n%b" % (status_text, fields)
        """The status line and the lines that are passed on, each with its CRLF."""
        self.length = length
        """Content-Length; there is one, and no other framing."""
        self.end = end
        """Where the body begins."""
        self.has_request_id = has_request_id


class AnswerLines:
    """Field lines of answers that llhttp has accepted."""

    def __init__(self) -> None:
        self._lines: dict[bytes, int] = {}
        self._status_lines: dict[bytes, int] = {}
        self._heads: dict[bytes, AnswerHead] = {}

    def read(self, data: bytes) -> AnswerHead | None:
        """Read the head at the start of `data`, or None: let the parser do it."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        raw = data[:end]
        head = self._heads.get(raw)
        if head is None:
            head = self._compose(raw)
            if head is not None:
                if len(self._heads) >= KNOWN_HEADS:
                    self._heads.clear()
                self._heads[raw] = head
        return head

    def _compose(self, raw: bytes) -> AnswerHead | None:
        """Read a head line by line."""
        lines = raw.split(b"\r\n")
        status_line = lines[0]
        status = self._status_lines.get(status_line)
        if status is None:
            return None
        known = self._lines
        length = -1
        has_request_id = False
        lines[0] = b""
        dropped = 0
        for index in range(1, len(lines)):
            line = lines[index]
            meaning = known.get(line)
            if meaning == PASS:
                continue
            if meaning is None:
                return None
            if meaning >= 0:
                if length >= 0:
                    return None
                length = meaning
            elif meaning == DROP:
                lines[index] = b""
                dropped += 1
            else:
                has_request_id = True
        if length < 0:
            return None
        if dropped:
            fields = b"\r\n".join([line for line in lines if line]) + b"\r\n"
        else:
            fields = raw[len(status_line) + 2 :] + b"\r\n"
        return AnswerHead(
            status, status_line[9:], fields, length, len(raw) + 4, has_request_id=has_request_id
        )

    def learn(self, data: bytes) -> None:
        """Take over the lines of a head that llhttp has accepted, at the start of `data`."""
        end = data.find(b"\r\n\r\n")
        lines = data[:end].split(b"\r\n")
        match = _STATUS_LINE.fullmatch(lines[0])
        if end < 0 or match is None:
            return
        if len(self._lines) + len(lines) > KNOWN_LINES or len(self._status_lines) > KNOWN_LINES:
            self._lines.clear()
            self._status_lines.clear()
            self._heads.clear()
        status = int(match[1])
        if status not in (204, 304) and len(lines[0]) <= LINE_BYTES:
            self._status_lines[lines[0]] = status
        for line in lines[1:]:
            if len(line) <= LINE_BYTES and line not in self._lines:
                meaning = _meaning(line)
                if meaning is not None:
                    self._lines[line] = meaning


def _meaning(line: bytes) -> int | None:
    """Return what an accepted field line means; None: the parser has to look at it each time."""
    raw_name, _, raw_value = line.partition(b":")
    name, value = raw_name.lower(), raw_value.strip(b" \t")
    field = RESPONSE_FIELDS.get(name)
    if field is None:
        return None if name in UNREPEATED else PASS
    if field is Field.CONTENT_LENGTH:
        return int(value) if value.isdigit() else None
    if field is Field.CONNECTION:
        return DROP if tokens(value) == {b"keep-alive"} else None
    if field is Field.REQUEST_ID:
        return REQUEST_ID
    return DROP if name == b"keep-alive" else None
