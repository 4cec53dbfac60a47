"""The OpenAPI 3.1 document, made from the route table.

Nothing is described by hand: schemas come from the structs that are encoded and decoded, parameters
from the query structs, and errors from the routes and what all calls share.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from moleport_server.api.problems import JSON, ErrorView
from moleport_server.api.routing import Access, NoQuery, Route

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_REF: Final = "#/components/schemas/{name}"

_NOT_AUTHENTICATED: Final = (
    (401, "missing token"),
    (401, "invalid token"),
    (429, "too many wrong tokens from this address"),
)
_BAD_BODY: Final = (
    (400, "Failed to parse the request body as JSON: …"),
    (413, "the body is larger than …"),
    (415, "Expected request with `Content-Type: application/json`"),
    (422, "Failed to deserialize the JSON body into the target type: …"),
)
_ANY: Final = ((500, "store unavailable"), (500, "internal error"), (504, "the call took too long"))
_DESCRIPTION: Final = (
    'Errors are JSON, `{"error": text}`; extensions add a stable `code`. Times are RFC 3339 in UTC. '
    "An API token sees and manages what it owns; everything else looks unknown to it."
)


def document(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """Return the document that describes the routes."""
    types: list[Any] = [ErrorView]
    for route in routes:
        types += [kind for kind in (route.answer, route.body) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {_key(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "moleport REST API", "version": version, "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"bearerAuth": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
        },
    }


def errors_of(route: Route) -> dict[int, list[str]]:
    """Return the texts of the errors that a call can answer, by status."""
    rows = list(route.errors)
    if route.access is not Access.PUBLIC:
        rows += _NOT_AUTHENTICATED
    if route.access is Access.ADMIN:
        rows.append((403, "admin token required"))
    if route.query is not NoQuery:
        rows.append((400, route.query_error or "Failed to deserialize query string: …"))
    if route.body is not None:
        rows += _BAD_BODY
    by_status: dict[int, list[str]] = {}
    for status, text in (*rows, *_ANY):
        by_status.setdefault(status, []).append(text)
    return dict(sorted(by_status.items()))


def _key(kind: Any) -> str:
    # Types such as list[TunnelView] are made anew each time they are written.
    return repr(kind)


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.family],
        "responses": _responses(route, schema_of),
    }
    parameters = [*_path_parameters(route.path), *_query_parameters(route.query)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {JSON: {"schema": schema_of[_key(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.access is Access.PUBLIC:
        operation["security"] = []
    elif route.access is Access.GATEWAY:
        operation["description"] = "Callers from the addresses of `hoody.trusted` need no token."
    return operation


def _responses(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done"}
    if route.answer is not None:
        success["content"] = {route.media_type: {"schema": schema_of[_key(route.answer)]}}
    elif route.media_type != JSON:
        success["content"] = {route.media_type: {"schema": {"type": "string"}}}
    responses = {str(route.status): success}
    if route.creates:
        responses["201"] = {**success, "description": "Created"}
    error = {JSON: {"schema": schema_of[_key(ErrorView)]}}
    for status, texts in errors_of(route).items():
        responses[str(status)] = {"description": " · ".join(texts), "content": error}
    return responses


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in _PARAMETER.findall(path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(query: type[Any]) -> Iterable[dict[str, Any]]:
    (_,), components = msgspec.json.schema_components([query], ref_template=_REF)
    properties: dict[str, dict[str, Any]] = components[query.__name__]["properties"]
    for name, schema in properties.items():
        parameter = {"name": name, "in": "query", "required": False, "schema": schema}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        yield parameter
