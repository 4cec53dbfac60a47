"""The one table from errors to HTTP: status, code and text of everything that a call can meet.

Bodies are always JSON, `{"error": text}`. Calls of the seed API carry nothing else; extensions add a
`code` that programs may rely on. Texts of the store and of faults are fixed: what a driver or a
traceback says is for the log.
"""

import math
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from moleport_server.errors import (
    ConflictError,
    Forbidden,
    InvalidRequest,
    NoSession,
    NotFoundError,
    QuotaExceeded,
    RateLimited,
    StoreError,
    StoreFull,
    Unauthenticated,
    UnavailableError,
    UpstreamBusy,
    UpstreamLost,
    UpstreamRefused,
)

JSON: Final = "application/json"


class UnsupportedMediaType(InvalidRequest):
    """The body does not say that it is JSON."""


class BodyTooLarge(InvalidRequest):
    """The body is larger than any call needs."""


class UnprocessableBody(InvalidRequest):
    """The body is JSON, but not of the shape that the call takes."""


class OriginalGone(ConflictError):
    """A request cannot be sent again, because its original is not in memory any more."""


class PreconditionFailed(ConflictError):
    """The object is not in the state that the caller named."""


class Rule(NamedTuple):
    """One row: what an error becomes."""

    error: type[Exception]
    status: int
    code: str
    text: str | None = None
    """None: what the error says; such texts are written for the caller."""
    in_seed: bool = True
    """Whether calls of the seed API can meet it; other errors always carry their code."""
    retry_after: int | None = None


RULES: Final = (
    Rule(Unauthenticated, 401, "unauthenticated", "invalid token"),
    Rule(Forbidden, 403, "forbidden"),
    Rule(RateLimited, 429, "rate_limited"),
    Rule(QuotaExceeded, 429, "quota_exceeded", in_seed=False, retry_after=5),
    Rule(PreconditionFailed, 412, "precondition_failed", in_seed=False),
    Rule(OriginalGone, 409, "original_gone", in_seed=False),
    Rule(ConflictError, 409, "conflict", in_seed=False),
    Rule(UnsupportedMediaType, 415, "unsupported_media_type"),
    Rule(BodyTooLarge, 413, "body_too_large"),
    Rule(UnprocessableBody, 422, "unprocessable_body"),
    Rule(InvalidRequest, 400, "invalid_request"),
    Rule(NotFoundError, 404, "not_found"),
    Rule(NoSession, 503, "agent_away", "the agent is away", in_seed=False, retry_after=5),
    Rule(UpstreamBusy, 503, "busy", "no stream could be opened", in_seed=False, retry_after=1),
    Rule(UpstreamRefused, 502, "upstream_refused", "the local service refused", in_seed=False),
    Rule(UpstreamLost, 502, "upstream_lost", "the local service broke off", in_seed=False),
    Rule(UnavailableError, 503, "unavailable", "not available", in_seed=False, retry_after=5),
    Rule(StoreFull, 507, "store_full", "store is full"),
    Rule(StoreError, 500, "store_unavailable", "store unavailable"),
    Rule(TimeoutError, 504, "timed_out", "the call took too long"),
    Rule(Exception, 500, "internal", "internal error"),
)
"""From the special to the general; the first that fits holds."""


class ErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error."""

    error: str
    code: str | msgspec.UnsetType = msgspec.UNSET
    """Stable name of the error; extensions only."""


def rule_of(error: Exception) -> Rule:
    """Return the row that holds for an error."""
    return next(rule for rule in RULES if isinstance(error, rule.error))


def problem_response(error: Exception, *, is_extension: bool) -> web.Response:
    """Return the answer that tells the caller about an error."""
    rule = rule_of(error)
    text = str(error) if rule.text is None else rule.text
    if isinstance(error, Unauthenticated) and error.missing:
        text = "missing token"
    retry_after = rule.retry_after
    if isinstance(error, RateLimited):
        retry_after = max(1, math.ceil(error.retry_after))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    code = rule.code if is_extension or not rule.in_seed else msgspec.UNSET
    return error_response(rule.status, text, code=code, headers=headers)


def error_response(
    status: int,
    text: str,
    *,
    code: str | msgspec.UnsetType = msgspec.UNSET,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Return an answer with the error body."""
    body = msgspec.json.encode(ErrorView(error=text, code=code))
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)
