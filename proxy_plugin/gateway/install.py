"""Start-up in a LiteLLM worker: settings, store, metrics, the callback itself, and the HTTP routes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.routing import Route

from proxy_plugin.admin import api
from proxy_plugin.admin.http import ApiError, Caller, Context
from proxy_plugin.admin.openapi import documented
from proxy_plugin.events import StoreChosen
from proxy_plugin.gateway import lines
from proxy_plugin.gateway.calls import listening
from proxy_plugin.gateway.count_tokens import counting_routes
from proxy_plugin.gateway.hooks import SessionPlugin, caller_of
from proxy_plugin.gateway.pipeline import Pipeline
from proxy_plugin.gateway.usage import ModelNames
from proxy_plugin.logs import describe
from proxy_plugin.metrics import Metrics
from proxy_plugin.sessions.connection import Connection
from proxy_plugin.sessions.outage import ADVICE
from proxy_plugin.sessions.store import SessionStore
from proxy_plugin.sessions.writer import GuardedStore, StoreUnavailable
from proxy_plugin.settings import Settings, SettingsError

log = logging.getLogger("proxy_plugin")

_FLUSH_SECONDS = 2.0
_ROUTER_SECONDS = 1.0
_BACKGROUND: set[asyncio.Task[None]] = set()  # held, because the loop keeps only weak references


def make_handler() -> SessionPlugin:
    """Builds the callback and mounts the routes. A setting that cannot be used ends the start-up."""
    lines.join_litellm()
    metrics = Metrics()
    emit = listening(metrics.observe)
    try:
        settings = Settings.load(beside=config_folder())
        connection = Connection.open(settings, emit=emit) if settings.mode != "off" else None
    except SettingsError as error:
        _stop(error)
    metrics.observe(StoreChosen(connection.kind if connection is not None else "none"))
    store = SessionStore(connection, settings, emit) if connection is not None else None
    guarded = GuardedStore(store, settings, emit) if store is not None else None
    pipeline = Pipeline(settings, guarded, emit)
    plugin = SessionPlugin(settings, pipeline, emit)
    authenticate = _authenticator(settings)
    context = Context(guarded, metrics, authenticate, settings.http.open_metrics)
    _mount(api.routes(settings.http.prefix, context), plugin, authenticate)
    _document(settings.http.prefix)
    _begin(_name_models(plugin.names))
    if connection is not None and guarded is not None:
        _greet(connection, guarded)
        _close_at_shutdown(connection, guarded)
    return plugin


def config_folder() -> Path | None:
    """The folder of the LiteLLM config that the proxy was started with, if it was."""
    from litellm.proxy import proxy_server

    path = getattr(proxy_server, "user_config_file_path", None)
    return Path(path).resolve().parent if isinstance(path, str) and path else None


def _stop(error: SettingsError) -> NoReturn:
    """One line instead of LiteLLM's traceback: a worker that started anyway would run other settings."""
    print(f"litellm-session-plugin: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _greet(connection: Connection, store: GuardedStore) -> None:
    """Connects at once, so that the first request does not wait for an embedded server to start."""

    async def connect() -> None:
        try:
            store.store.recovery.start()
            await store.ask(store.store.ping())
        except StoreUnavailable as error:
            log.warning("the session store %s; requests go on without it", ADVICE[str(error)])
        except Exception as error:
            log.warning("the session store cannot be used: %s; requests go on without it", describe(error))

    _begin(connect())


async def _name_models(names: ModelNames) -> None:
    """LiteLLM makes its router after its callbacks."""
    try:
        while not names.read():
            await asyncio.sleep(_ROUTER_SECONDS)
    except Exception as error:
        log.warning("the models are not known before their first requests: %s", type(error).__name__)


def _begin(work: Coroutine[Any, Any, None]) -> None:
    """In the background; nothing where no loop runs yet: the first request does it then."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work.close()
        return
    task = loop.create_task(work)
    _BACKGROUND.add(task)
    task.add_done_callback(_BACKGROUND.discard)


def _close_at_shutdown(connection: Connection, store: GuardedStore) -> None:
    """Flushes what is pending when the proxy ends. LiteLLM's hook for that is private: do without if it is gone."""
    from litellm.proxy import proxy_server

    original = getattr(proxy_server, "proxy_shutdown_event", None)
    if original is None:
        return

    async def shutdown(*args: Any, **kwargs: Any) -> Any:
        try:
            await store.close(_FLUSH_SECONDS)
            await connection.close()
        except Exception as error:
            log.warning("closing the session store: %s", type(error).__name__)
        return await original(*args, **kwargs)

    proxy_server.proxy_shutdown_event = shutdown


def _mount(routes: list[Route], plugin: SessionPlugin, authenticate: Any) -> None:
    """In front of LiteLLM's own routes, once."""
    from litellm.proxy.proxy_server import app

    if getattr(app.state, "proxy_plugin_mounted", False):
        return
    app.state.proxy_plugin_mounted = True
    counting = counting_routes(app, plugin.preview, authenticate, plugin.total_seconds)
    app.router.routes[:0] = [*routes, *counting]


def _document(prefix: str) -> None:
    """On LiteLLM's own documentation page: FastAPI leaves plain routes out."""
    from litellm.proxy.proxy_server import app

    app.openapi = documented(app.openapi, api.RULES, prefix)  # type: ignore[method-assign]
    app.openapi_schema = None


def _authenticator(settings: Settings) -> Any:
    async def authenticate(request: Request) -> Caller:
        """LiteLLM's own key check. Raises ApiError 401 or 403."""
        from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

        headers = request.headers
        if not any(headers.get(name) for name in ("authorization", "x-api-key", "x-litellm-api-key", "api-key")):
            raise ApiError(401, "no API key was sent", kind="auth_error")
        try:
            key = await user_api_key_auth(
                request=_as_model_list(request),
                api_key=headers.get("authorization", ""),
                azure_api_key_header=headers.get("api-key", ""),
                anthropic_api_key_header=headers.get("x-api-key"),
                google_ai_studio_api_key_header=None,
                azure_apim_header=None,
                custom_litellm_key_header=headers.get("x-litellm-api-key"),
            )
        except Exception as error:
            status = 403 if str(getattr(error, "code", getattr(error, "status_code", ""))) == "403" else 401
            raise ApiError(status, "the API key is not accepted", kind="auth_error") from None
        return caller_of(settings, key)

    return authenticate


def _as_model_list(request: Request) -> Request:
    """The same request as if it asked for the models: LiteLLM refuses routes that it does not know to
    keys that are no admin's, and reads bodies as JSON."""

    async def no_body() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {**request.scope, "method": "GET", "path": "/v1/models", "raw_path": b"/v1/models", "query_string": b""}
    return Request(scope, no_body)
