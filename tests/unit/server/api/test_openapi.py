from typing import Any

import pytest
from jsonschema import Draft202012Validator

from helpers.api import Api, ApiWorld
from moleport_server.api.application import ROUTES
from moleport_server.api.openapi import errors_of


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    described: dict[str, Any] = (await api.get("/api/openapi.json", secret=None)).json
    return described


def test_every_route_is_described_and_nothing_else(
    world: ApiWorld, document: dict[str, Any]
) -> None:
    served = {(route.method.lower(), route.path) for route in world.app[ROUTES]}

    assert document["openapi"] == "3.1.0"
    assert served == {
        (method, path) for path in document["paths"] for method in document["paths"][path]
    }


def test_operations_have_the_names_of_the_seed(document: dict[str, Any]) -> None:
    names = {
        f"{method.upper()} {path}": operation["operationId"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }

    assert len(set(names.values())) == len(names)
    assert (
        names
        | {
            "GET /api/status": "getStatus",
            "GET /api/tunnels": "listTunnels",
            "GET /api/tunnels/{id}": "getTunnel",
            "DELETE /api/tunnels/{id}": "closeTunnel",
            "GET /api/tunnels/{id}/requests": "tunnelRequests",
            "GET /api/tokens": "listTokens",
            "POST /api/tokens": "createToken",
            "DELETE /api/tokens/{id}": "deleteToken",
            "GET /api/history": "getTunnelHistory",
        }
        == names
    )


def test_schemas_are_valid_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}


def test_parameters_come_from_path_and_query(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/api/tunnels/{id}/requests"]["get"]["parameters"]

    assert [(one["name"], one["in"], one["required"]) for one in parameters] == [
        ("id", "path", True),
        ("limit", "query", False),
    ]
    assert parameters[1]["schema"] == {"type": "integer", "minimum": 0, "default": 50}


def test_public_calls_need_no_token(world: ApiWorld, document: dict[str, Any]) -> None:
    public = [
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if operation.get("security") == []
    ]

    assert set(public) == {
        "/api/status",
        "/api/regions",
        "/api/v1/tunnel/connect",
        "/api/v1/tunnel/health",
        "/api/v1/tunnel/metrics",
        "/api/openapi.json",
        "/api/docs",
    }


def test_shared_errors_are_described_with_each_call(world: ApiWorld) -> None:
    create = next(route for route in world.app[ROUTES] if route.operation == "createToken")

    assert set(errors_of(create)) == {400, 401, 403, 413, 415, 422, 429, 500, 504, 507}
