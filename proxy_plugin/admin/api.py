"""The HTTP API: all routes under one prefix. Plain Starlette.

Whoever mounts them says how a request is authenticated. A session of another tenant is the same 404 as
one that does not exist.
"""

from __future__ import annotations

from starlette.routing import Route

from proxy_plugin.admin import histories, operations, sessions
from proxy_plugin.admin.http import Context, Rule, route

RULES: tuple[Rule, ...] = (*sessions.RULES, *histories.RULES, *operations.RULES)


def routes(prefix: str, context: Context) -> list[Route]:
    root = "/" + prefix.strip("/")
    return [route(rule, root, context) for rule in RULES]
