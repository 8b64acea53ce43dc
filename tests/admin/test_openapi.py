"""The routes on LiteLLM's own documentation page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from proxy_plugin.admin.api import RULES
from proxy_plugin.admin.openapi import components, describe, documented
from tests.proxy import Proxy


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in describe(RULES, "/api/v1").items():
        for operation in methods.values():
            yield path, operation


def test_every_route_is_on_litellms_page(proxy: Proxy) -> None:
    document = httpx.get(proxy.root + "/openapi.json", timeout=60).json()
    for rule in RULES:
        path = "/api/v1" + rule.path.replace(":rest", "")
        operation = document["paths"][path][rule.method.lower()]
        assert operation["summary"] == rule.summary and operation["tags"]
    assert "/chat/completions" in document["paths"]  # theirs are still there
    ids = [o["operationId"] for p in document["paths"].values() for o in p.values() if "operationId" in o]
    ours = [name for name in ids if name.startswith("session_plugin_")]
    assert len(ours) == len(RULES) and len(set(ids)) == len(ids)
    assert document["paths"].keys() >= describe(RULES, "/api/v1").keys()
    for scheme in {name for _, o in operations() for needed in o["security"] for name in needed}:
        assert scheme in document["components"]["securitySchemes"]


@pytest.mark.parametrize(("path", "operation"), list(operations()))
def test_an_operation_is_valid_openapi(path: str, operation: dict[str, Any]) -> None:
    parameters = operation.get("parameters", [])
    assert {p["name"] for p in parameters if p["in"] == "path"} == set(re.findall(r"\{([^}]*)\}", path))
    assert all(p["required"] for p in parameters if p["in"] == "path")
    assert len({(p["in"], p["name"]) for p in parameters}) == len(parameters)
    schemas = [p["schema"] for p in parameters]
    contents = [*operation["responses"].values(), operation.get("requestBody", {})]
    schemas += [media["schema"] for content in contents for media in content.get("content", {}).values()]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
        if reference := schema.get("$ref"):
            assert reference.removeprefix("#/components/schemas/") in components()["schemas"]
    assert all(re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"])


def test_the_page_is_made_anew_with_theirs() -> None:
    theirs: dict[str, Any] = {"openapi": "3.1.0", "paths": {"/a": {}}}
    openapi = documented(lambda: theirs, RULES, "/api/v1")
    assert openapi() is openapi() and {"/a", "/api/v1/sessions"} <= openapi()["paths"].keys()
    theirs = {"openapi": "3.1.0", "paths": {"/b": {}}}
    assert "/b" in openapi()["paths"] and theirs["paths"] == {"/b": {}}
