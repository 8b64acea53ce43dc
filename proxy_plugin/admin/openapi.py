"""What the API's own documentation page shows of the routes, as OpenAPI. Made from their rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from proxy_plugin.admin.http import Query, Rule

TAG = "session plugin"
_SCHEMA = "SessionPluginError"
_SCHEME = "SessionPluginKey"
_IN_PATH = re.compile(r"\{(\w+)(?::\w+)?\}")
_TENANT = Query("tenant", "Whose session it is, where an admin's key asks.")

Document = dict[str, Any]


def documented(original: Callable[[], Document], rules: Iterable[Rule], prefix: str) -> Callable[[], Document]:
    """The application's `openapi` with the routes in it. Like that, it is made once for each new document of
    the original's."""
    paths = describe(rules, prefix)
    known: list[tuple[Document, Document]] = []

    def openapi() -> Document:
        theirs = original()
        if not known or known[0][0] is not theirs:
            known[:] = [(theirs, _joined(theirs, paths))]
        return known[0][1]

    return openapi


def describe(rules: Iterable[Rule], prefix: str) -> Document:
    """The `paths` of an OpenAPI document."""
    paths: Document = {}
    for rule in rules:
        path = "/" + prefix.strip("/") + _IN_PATH.sub(r"{\1}", rule.path)
        paths.setdefault(path, {})[rule.method.lower()] = _operation(rule)
    return paths


def components() -> Document:
    """The `components` that the paths refer to."""
    text = {"type": "string"}
    fault = {"message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text}
    return {
        "schemas": {
            _SCHEMA: {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "object", "required": list(fault), "properties": fault}},
            }
        },
        "securitySchemes": {_SCHEME: {"type": "http", "scheme": "bearer", "description": "A key of the proxy's."}},
    }


def _joined(theirs: Document, paths: Document) -> Document:
    mine = components()
    held = theirs.get("components", {})
    joined = {kind: {**held.get(kind, {}), **values} for kind, values in mine.items()}
    return {**theirs, "paths": {**theirs.get("paths", {}), **paths}, "components": {**held, **joined}}


def _operation(rule: Rule) -> Document:
    named = _IN_PATH.findall(rule.path)
    tenant = (_TENANT,) if "session_id" in named else ()
    parameters = [_parameter(name, "path", "string", "", True) for name in named]
    parameters += [_parameter(q.name, "query", q.kind, q.summary, q.required) for q in (*rule.query, *tenant)]
    operation: Document = {
        "tags": [TAG],
        "summary": rule.summary,
        "operationId": f"session_plugin_{rule.handler.__name__}_{rule.method.lower()}",
        "responses": {
            **{
                str(status): {"description": "Done.", "content": {rule.media: {"schema": _answer(rule)}}}
                for status in (rule.status, rule.also)
                if status is not None
            },
            "default": {
                "description": "What went wrong, in LiteLLM's shape.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{_SCHEMA}"}}},
            },
        },
        "security": [] if rule.open else [{_SCHEME: []}],
    }
    if parameters:
        operation["parameters"] = parameters
    if (schema := _body(rule)) is not None:
        must = bool(rule.required) or rule.takes != "application/json"
        operation["requestBody"] = {"required": must, "content": {rule.takes: {"schema": schema}}}
    return operation


def _parameter(name: str, place: str, kind: str, summary: str, required: bool) -> Document:
    said = {"description": summary} if summary else {}
    return {"name": name, "in": place, "required": required, "schema": {"type": kind}, **said}


def _answer(rule: Rule) -> Mapping[str, Any]:
    return {"type": "object"} if rule.media == "application/json" else {"type": "string"}


def _body(rule: Rule) -> Mapping[str, Any] | None:
    if rule.takes != "application/json":
        return {"type": "string"}
    if rule.body is None:
        return None
    required = {"required": list(rule.required)} if rule.required else {}
    return {"type": "object", "properties": dict(rule.body), "additionalProperties": False, **required}
