"""Serve one route: who calls, what they sent, the answer, the error; always in this order.

Authentication comes before anything that a stranger sends is looked at. Texts in front of what the
decoder says are those of the seed API.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler as WebHandler

from moleport_server.api.authentication import Gate
from moleport_server.api.problems import (
    JSON,
    BodyTooLarge,
    UnprocessableBody,
    UnsupportedMediaType,
    problem_response,
)
from moleport_server.api.routing import Access, Call, Reply, Route
from moleport_server.domain.token import Principal
from moleport_server.errors import Forbidden, InvalidRequest, ServerError, StoreError

logger = logging.getLogger(__name__)

LARGEST_BODY_BYTES: Final = 64 << 10
"""Bodies are small objects; a token with hundreds of patterns fits many times."""
_BODY_SECONDS: Final = 10.0

Observer = Callable[[Route, int, float], None]
"""Told the route, the status and the seconds of each call; for metrics."""


def bind(route: Route, gate: Gate, observe: Observer) -> WebHandler:
    """Return the aiohttp handler of a route."""

    async def handle(request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(route.deadline_seconds):
                response = await _answer(route, gate, request)
        except (ServerError, TimeoutError) as error:
            if isinstance(error, (StoreError, TimeoutError)):
                extra = {"operation": route.operation, "error": repr(error)}
                logger.warning("a call was not served", extra=extra)
            response = problem_response(error, is_extension=route.is_extension)
        except Exception as error:
            logger.exception("a call failed", extra={"operation": route.operation})
            response = problem_response(error, is_extension=route.is_extension)
        observe(route, response.status, loop.time() - started)
        return response

    return handle


async def _answer(route: Route, gate: Gate, request: web.Request) -> web.StreamResponse:
    caller: Principal | None = None
    if route.access is not Access.PUBLIC:
        caller = await gate.identify(request, may_be_trusted=route.access is Access.GATEWAY)
        if route.access is Access.ADMIN and not caller.is_admin:
            raise Forbidden("admin token required")
    query = _decode_query(request, route.query, route.query_error)
    body = None if route.body is None else await _decode_body(request, route.body)
    answer = await route.handler(Call(request, caller, query, body))
    headers, status = None, route.status
    if isinstance(answer, Reply):
        status = answer.status or status
        answer, headers = answer.answer, answer.headers
    if isinstance(answer, web.StreamResponse):
        return answer
    if route.answer is None:
        return web.Response(status=route.status, headers=headers)
    return web.Response(
        status=status, body=msgspec.json.encode(answer), content_type=JSON, headers=headers
    )


def _decode_query(request: web.Request, shape: type[Any], problem: str | None) -> Any:
    fields = {field.encode_name for field in msgspec.structs.fields(shape)}
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given and name in fields:
            text = f"Failed to deserialize query string: duplicate field `{name}`"
            raise InvalidRequest(problem or text)
        given[name] = value
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        text = f"Failed to deserialize query string: {error}"
        raise InvalidRequest(problem or text) from error


async def _decode_body(request: web.Request, shape: type[Any]) -> Any:
    kind = request.content_type
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType("Expected request with `Content-Type: application/json`")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            content = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyTooLarge(f"the body is larger than {LARGEST_BODY_BYTES} bytes") from error
    # Two steps, so that a syntax error is one even behind a value of the wrong type.
    try:
        document = msgspec.json.decode(content)
    except RecursionError as error:
        text = "Failed to parse the request body as JSON: it is nested too deeply"
        raise InvalidRequest(text) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Failed to parse the request body as JSON: {error}") from error
    try:
        return msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        text = f"Failed to deserialize the JSON body into the target type: {error}"
        raise UnprocessableBody(text) from error
