import re
from typing import Any

from helpers.api import Api
from moleport_server.api.docs import render_page


async def test_the_page_describes_every_call_without_the_internet(api: Api) -> None:
    answer = await api.get("/api/docs", secret=None)
    document = (await api.get("/api/openapi.json", secret=None)).json

    page = answer.body.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page
    for name in document["components"]["schemas"]:
        assert f"id='{name}'" in page
    assert re.findall(r"(?:src|href)=['\"]?(?:https?:)?//", page) == []
    assert "<script" not in page


def test_texts_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    operation: dict[str, Any] = {
        "summary": evil,
        "tags": [evil],
        "parameters": [{"name": evil, "in": "query", "description": evil}],
        "responses": {"200": {"description": evil}},
    }
    described = {
        "info": {"title": evil, "version": evil, "description": evil},
        "paths": {evil: {"get": operation}},
        "components": {"schemas": {"X": {"title": evil}}},
    }

    assert "<script" not in render_page(described)
