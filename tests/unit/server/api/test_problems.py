import msgspec
import pytest

from moleport_server import errors
from moleport_server.api.problems import (
    RULES,
    BodyTooLarge,
    OriginalGone,
    UnprocessableBody,
    UnsupportedMediaType,
    problem_response,
    rule_of,
)


@pytest.mark.parametrize(
    ("error", "status", "seed", "extension"),
    [
        (
            errors.Unauthenticated("x", missing=True),
            401,
            {"error": "missing token"},
            {"error": "missing token", "code": "unauthenticated"},
        ),
        (
            errors.Unauthenticated("token 4711 expired"),
            401,
            {"error": "invalid token"},
            {"error": "invalid token", "code": "unauthenticated"},
        ),
        (
            errors.Forbidden("admin token required"),
            403,
            {"error": "admin token required"},
            {"error": "admin token required", "code": "forbidden"},
        ),
        (
            errors.RateLimited("too many failed logins", 2.1),
            429,
            {"error": "too many failed logins"},
            {"error": "too many failed logins", "code": "rate_limited"},
        ),
        (
            errors.NotFoundError("tunnel not found"),
            404,
            {"error": "tunnel not found"},
            {"error": "tunnel not found", "code": "not_found"},
        ),
        (
            errors.InvalidRequest("say please"),
            400,
            {"error": "say please"},
            {"error": "say please", "code": "invalid_request"},
        ),
        (
            UnsupportedMediaType("json, please"),
            415,
            {"error": "json, please"},
            {"error": "json, please", "code": "unsupported_media_type"},
        ),
        (
            BodyTooLarge("less, please"),
            413,
            {"error": "less, please"},
            {"error": "less, please", "code": "body_too_large"},
        ),
        (
            UnprocessableBody("label, please"),
            422,
            {"error": "label, please"},
            {"error": "label, please", "code": "unprocessable_body"},
        ),
        (
            errors.StoreFull("SQLITE_FULL: database or disk is full"),
            507,
            {"error": "store is full"},
            {"error": "store is full", "code": "store_full"},
        ),
        (
            errors.StoreError("sqlite3.OperationalError: secret"),
            500,
            {"error": "store unavailable"},
            {"error": "store unavailable", "code": "store_unavailable"},
        ),
        (
            TimeoutError("secret"),
            504,
            {"error": "the call took too long"},
            {"error": "the call took too long", "code": "timed_out"},
        ),
        (
            KeyError("secret"),
            500,
            {"error": "internal error"},
            {"error": "internal error", "code": "internal"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_any_call_has_a_status_and_a_text(
    error: Exception, status: int, seed: object, extension: object
) -> None:
    answers = [problem_response(error, is_extension=flag) for flag in (False, True)]

    assert [answer.status for answer in answers] == [status, status]
    assert [msgspec.json.decode(_body(answer)) for answer in answers] == [seed, extension]
    assert {answer.content_type for answer in answers} == {"application/json"}


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (OriginalGone("gone"), 409, "original_gone", None),
        (errors.NameTaken("taken"), 409, "conflict", None),
        (errors.QuotaExceeded("too many"), 429, "quota_exceeded", "5"),
        (errors.NoSession("secret"), 503, "agent_away", "5"),
        (errors.UpstreamBusy("secret"), 503, "busy", "1"),
        (errors.UpstreamRefused("secret"), 502, "upstream_refused", None),
        (errors.UpstreamLost("secret"), 502, "upstream_lost", None),
        (errors.UnavailableError("secret"), 503, "unavailable", "5"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_extensions_always_has_its_code(
    error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    answer = problem_response(error, is_extension=False)

    assert answer.status == status
    assert msgspec.json.decode(_body(answer))["code"] == code
    assert b"secret" not in _body(answer)
    assert answer.headers.get("Retry-After") == retry_after


def test_a_rate_limit_says_in_whole_seconds_when_to_come_back() -> None:
    answer = problem_response(errors.RateLimited("slowly", 2.1), is_extension=False)

    assert answer.headers["Retry-After"] == "3"


def test_every_rule_can_be_reached() -> None:
    for index, rule in enumerate(RULES):
        shadowing = [other.error for other in RULES[:index] if issubclass(rule.error, other.error)]
        assert shadowing == []


def test_every_error_of_the_server_finds_a_rule() -> None:
    assert rule_of(errors.ServerError("?")).code == "internal"


def _body(answer: object) -> bytes:
    body = getattr(answer, "body", None)
    assert isinstance(body, bytes)
    return body
