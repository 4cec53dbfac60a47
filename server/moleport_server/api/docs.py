"""The API's own description: the OpenAPI document, and a page that shows it without the internet."""

from html import escape
from typing import Any, Final

import msgspec
from aiohttp import web

from moleport_server.api.openapi import document
from moleport_server.api.problems import JSON
from moleport_server.api.routing import Access, Call, NoQuery, Route

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;
color:#1c2430;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d5dbe3}
details{border:1px solid #d5dbe3;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}
summary{cursor:pointer}code,pre{font:14px/1.4 ui-monospace,monospace}
.method{display:inline-block;min-width:4.5rem;font-weight:700}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left;
vertical-align:top}pre{overflow:auto}.note{color:#5a6675}
@media(prefers-color-scheme:dark){body{color:#dfe5ec;background:#14181e}}
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class DocsRoutes:
    """The description of everything else; give it the routes when they are all known."""

    def __init__(self, *, version: str) -> None:
        self._version = version
        self._document = b"{}"
        self._page = ""

    def describe(self, routes: tuple[Route, ...]) -> None:
        """Make document and page of the routes, once."""
        described = document(routes, version=self._version)
        self._document = msgspec.json.encode(described)
        self._page = render_page(described)

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/openapi.json",
                operation="getOpenApi",
                summary="The OpenAPI document",
                handler=self._get_document,
                family="description",
                access=Access.PUBLIC,
                answer=dict[str, Any],
            ),
            Route(
                method="GET",
                path="/api/docs",
                operation="getDocs",
                summary="The OpenAPI document as a page for people",
                handler=self._get_page,
                family="description",
                access=Access.PUBLIC,
                media_type="text/html",
                is_extension=True,
            ),
        )

    async def _get_document(self, _call: Call[NoQuery, None]) -> web.Response:
        return web.Response(body=self._document, content_type=JSON)

    async def _get_page(self, _call: Call[NoQuery, None]) -> web.Response:
        headers = {"Content-Security-Policy": _POLICY}
        return web.Response(text=self._page, content_type="text/html", headers=headers)


def render_page(described: dict[str, Any]) -> str:
    """Return a self-contained HTML page that shows an OpenAPI document of ours."""
    families: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            rendered = _render_operation(method, path, operation)
            families.setdefault(operation["tags"][0], []).append(rendered)
    sections = [f"<h2>{escape(name)}</h2>{''.join(calls)}" for name, calls in families.items()]
    schemas = [
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"{_render_json(schema)}</details>"
        for name, schema in described["components"]["schemas"].items()
    ]
    title, version = (escape(described["info"][key]) for key in ("title", "version"))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<style>{_STYLE}</style><h1>{title} <span class=note>{version}</span></h1>"
        f"<p>{escape(described['info']['description'])}"
        "<p>For programs: <a href=/api/openapi.json>openapi.json</a>. "
        "Send <code>Authorization: Bearer &lt;token&gt;</code> unless a call is public."
        f"{''.join(sections)}<h2>shapes</h2>{''.join(schemas)}</html>"
    )


def _render_operation(method: str, path: str, operation: dict[str, Any]) -> str:
    public = " <span class=note>public</span>" if operation.get("security") == [] else ""
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}"
        f"<td>{escape(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    responses = "".join(
        f"<tr><td>{escape(status)}<td>{escape(one['description'])}<td>{_render_content(one)}"
        for status, one in operation["responses"].items()
    )
    body = operation.get("requestBody")
    return (
        f"<details><summary><span class=method>{escape(method.upper())}</span>"
        f"<code>{escape(path)}</code> {escape(operation['summary'])}{public}</summary>"
        + (f"<h3>Parameters</h3><table>{parameters}</table>" if parameters else "")
        + (f"<h3>Body</h3>{_render_content(body)}" if body else "")
        + f"<h3>Answers</h3><table>{responses}</table></details>"
    )


def _render_content(part: dict[str, Any]) -> str:
    for media_type, content in part.get("content", {}).items():
        schema = content["schema"]
        reference = schema.get("$ref") or schema.get("items", {}).get("$ref")
        if reference is None:
            return escape(media_type)
        name = escape(reference.rpartition("/")[2])
        prefix = "" if "$ref" in schema else "array of "
        return f"{prefix}<a href='#{name}'>{name}</a>"
    return ""


def _render_json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value)).decode())}</pre>"
