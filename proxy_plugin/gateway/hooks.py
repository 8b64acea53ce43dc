"""LiteLLM's callbacks: the only way in. Every hook is a fail-open boundary.

The hooks stand on the leaf class itself, because LiteLLM skips inherited ones, and
`async_post_call_streaming_hook` is left alone, because overriding it slows every chunk down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from litellm.integrations.custom_logger import CustomLogger

from proxy_plugin.admin.http import Caller
from proxy_plugin.events import Emit, PassedThrough
from proxy_plugin.gateway import lines, spans
from proxy_plugin.gateway.calls import Call, during
from proxy_plugin.gateway.pipeline import Pipeline, pass_whole
from proxy_plugin.gateway.replies import Reply, StreamedReply, streamed_reply, take_reply
from proxy_plugin.gateway.response_ids import provider_id
from proxy_plugin.gateway.targets import Targets
from proxy_plugin.gateway.turn import Incoming, Turn
from proxy_plugin.gateway.usage import ModelNames, usage_of
from proxy_plugin.logs import describe
from proxy_plugin.patience import within
from proxy_plugin.sessions.identity import kept_under, tenant_of
from proxy_plugin.settings import Settings

log = logging.getLogger("proxy_plugin")

ENDPOINTS = {
    "acompletion": ("chat", "messages"),
    "completion": ("chat", "messages"),
    "anthropic_messages": ("messages", "messages"),
    "aresponses": ("responses", "input"),
}
"""Call types of LiteLLM whose histories are handled: the wire form, and where in the request it stands."""

_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "x-litellm-api-key", "x-goog-api-key", "cookie"})
_NO_FAULT_OF_OURS = frozenset(
    {"AuthenticationError", "BudgetExceededError", "ContextWindowExceededError", "ContentPolicyViolationError"}
)
_NO_FAULT_WORDS = ("api key", "api_key", "quota", "billing", "credit", "context length", "context window", "permission")


class SessionPlugin(CustomLogger):
    """The callback that a LiteLLM config names as `proxy_plugin.handler`."""

    def __init__(self, settings: Settings, pipeline: Pipeline, emit: Emit) -> None:
        super().__init__()
        self._settings = settings
        self._pipeline = pipeline
        self._emit = emit
        self._targets = Targets(settings.targets.providers)
        self.names = ModelNames(emit)
        self._turns: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()  # by LiteLLM's logging object of the call
        # By tenant and LiteLLM's id of the call, which a client may choose.
        self._calls: WeakValueDictionary[tuple[str, str], Turn] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self.total_seconds = settings.deadlines.total_ms / 1000

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: Any, call_type: Any) -> Any:
        """Stores and rewrites the history; the list in `data` is replaced at the very end or not at all."""
        endpoint = ENDPOINTS.get(call_type)
        if endpoint is None:
            return None
        api, key = endpoint
        call = Call(str(data.get("litellm_call_id") or ""), spans.parent_of(user_api_key_dict))
        with during(call, lines.tell, spans.tell):
            turn = await self._turn_of(api, data.get(key), user_api_key_dict, data)
            if turn is None:
                return None
            call.session = turn.headers["x-proxy-plugin-session"]
            turn.call = Call(call.id, call.parent, "reply", call.session)
        logging_object = data.get("litellm_logging_obj")
        if logging_object is not None:
            self._turns[logging_object] = turn
            self._calls[self._call(data, user_api_key_dict)] = turn
        messages, turn.messages = turn.messages, None
        if messages is not None:
            data[key] = messages
            data.update(turn.fields)
        return None

    async def _turn_of(self, api: str, wire: Any, caller: Any, data: Any) -> Turn | None:
        """None for a request that passes as it came. Never raises."""
        try:
            return await self._before(api, wire, caller, data)
        except TimeoutError:
            self._passed(api, wire, "deadline")
        except Exception as error:
            log.warning("a request passes as it came: %s", describe(error))
            self._passed(api, wire, "internal_error")
        return None

    async def _before(self, api: str, wire: Any, caller: Any, data: Any) -> Turn | None:
        incoming = self._incoming(api, wire, caller_of(self._settings, caller), data)
        if incoming is None:
            return None
        turn = await within(self.total_seconds, self._pipeline.before(incoming))
        if turn is not None and turn.messages is incoming.wire:
            turn.messages = None
        return turn

    def preview(self, caller: Caller, data: Any) -> Any:
        """The messages that a request to /v1/messages would be sent with; `data` as the hooks get it."""
        incoming = self._incoming("messages", data.get("messages"), caller, data)
        return data.get("messages") if incoming is None else self._pipeline.preview(incoming)

    def _incoming(self, api: str, wire: Any, caller: Caller, data: Any) -> Incoming | None:
        request = data.get("proxy_server_request") or {}
        headers = {str(name).lower(): value for name, value in (request.get("headers") or {}).items()}
        wish = str(headers.get("x-proxy-plugin") or "").strip().lower()
        if self._settings.mode == "off" or wish == "off":
            self._passed(api, wire, "mode_off" if self._settings.mode == "off" else "header_off")
            return None
        earlier, conversation = self._kept(caller.tenant, data) if api == "responses" else ("", "")
        target = self._targets.target(data, api)
        settings = self._settings.for_request(
            model=str(data.get("model") or ""), key=caller.keys, team=caller.team, facts=target.facts
        )
        if settings.mode == "off":
            self._passed(api, wire, "mode_off")
            return None
        return Incoming(
            api=api,
            wire=[{"role": "user", "content": wire}] if api == "responses" and isinstance(wire, str) else wire,
            headers={name: value for name, value in headers.items() if name not in _CREDENTIALS},
            body=request.get("body") or data,
            tenant=caller.tenant,
            dialect=target.dialect,
            settings=settings,
            mode="audit" if wish == "audit" else settings.mode,
            continued=api == "responses" and bool(data.get("previous_response_id") or data.get("conversation")),
            earlier=earlier or conversation,
            conversation=conversation,
            model=self.names.label(str(data.get("model") or "")),
            dollars=target.dollars,
        )

    def _kept(self, tenant: str, data: Any) -> tuple[str, str]:
        """Where the store keeps the ends of the response and of the conversation that a request goes on from."""
        conversation = data.get("conversation")
        named = conversation.get("id") if isinstance(conversation, dict) else conversation
        response_id = provider_id(data.get("previous_response_id"))
        return (
            kept_under(tenant, "response", response_id) if response_id else "",
            kept_under(tenant, "conversation", named) if isinstance(named, str) and named else "",
        )

    def _passed(self, api: str, wire: Any, reason: str) -> None:
        try:
            pass_whole(self._emit, api, wire, reason)
        except Exception as error:
            log.warning("a pass-through is not counted: %s", describe(error))

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        """Whole replies: renames ids and stores the message. Changes the response in place."""
        turn = self._turn(data, user_api_key_dict)
        if turn is not None and turn.work is not None:
            with during(turn.call, spans.tell):
                try:
                    reply = take_reply(turn.work.path.api, response, self._pipeline.names(turn))
                    await self._after(turn, reply)
                except Exception as error:
                    self._failed("reply", error)
        return None

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: Any
    ) -> AsyncGenerator[Any, None]:
        """Streams: each chunk goes on at once. What came is stored at the end, also when the client left; where
        a client may go on from it by its id, before the end goes on."""
        turn = self._turn(request_data, user_api_key_dict)
        reply = self._streamed_reply(turn)
        if turn is None or reply is None:
            async for chunk in response:
                yield chunk
            return
        try:
            async for chunk in response:
                try:
                    seen = reply.see(chunk)
                except Exception as error:
                    with during(Call(turn.call.id)):
                        self._failed("chunk", error)
                    seen = (*reply.rest(), chunk)
                if reply.over and turn.work is not None and turn.work.kept:
                    await self._store(turn, reply)
                for part in seen:
                    yield part
            for part in reply.rest():
                yield part
        finally:
            await self._store(turn, reply)

    def _streamed_reply(self, turn: Turn | None) -> StreamedReply | None:
        try:
            if turn is not None and turn.work is not None:
                return streamed_reply(turn.work.path.api, self._pipeline.names(turn))
        except Exception as error:
            self._failed("reply", error)
        return None

    async def _store(self, turn: Turn, reply: StreamedReply) -> None:
        """In a task of its own: a client that leaves cancels the stream, not the commit."""
        task = asyncio.create_task(self._store_streamed(turn, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _store_streamed(self, turn: Turn, reply: StreamedReply) -> None:
        if turn.work is None:  # done already, before the end of the stream went on
            return
        with during(turn.call, spans.tell):
            try:
                await self._after(turn, reply.reply())
            except Exception as error:
                self._failed("reply", error)

    async def _after(self, turn: Turn, reply: Reply | None) -> None:
        if reply is None:
            await self._pipeline.after(turn, None, complete=True)
        else:
            response_id = provider_id(reply.response_id)
            await self._pipeline.after(turn, reply.items, complete=reply.complete, response_id=response_id)

    async def async_post_call_response_headers_hook(
        self,
        data: Any,
        user_api_key_dict: Any,
        response: Any,
        request_headers: Any = None,
        litellm_call_info: Any = None,
    ) -> dict[str, str] | None:
        turn = self._turn(data, user_api_key_dict)
        return dict(turn.headers) if turn is not None else None

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Reads the provider's usage, after the reply has gone out."""
        try:
            usage = usage_of(kwargs, self.names) if kwargs.get("call_type") in ENDPOINTS else None
            if usage is not None:
                self._emit(usage)
        except Exception as error:
            log.warning("usage is not counted: %s", describe(error))

    async def async_post_call_failure_hook(
        self, request_data: Any, original_exception: Any, user_api_key_dict: Any, traceback_str: Any = None
    ) -> None:
        """Counts refusals of what was rewritten, for the safety fallback."""
        turn = self._turn(request_data, user_api_key_dict)
        if turn is not None:
            self._pipeline.failed(turn, refused=_is_refusal(original_exception))

    def _call(self, data: Any, caller: Any) -> tuple[str, str]:
        return caller_of(self._settings, caller).tenant, str(data.get("litellm_call_id"))

    def _turn(self, data: Any, caller: Any) -> Turn | None:
        if not isinstance(data, dict):
            return None
        logging_object = data.get("litellm_logging_obj")
        if logging_object is not None:
            return self._turns.get(logging_object)
        return self._calls.get(self._call(data, caller))  # LiteLLM takes the object out before failure hooks

    def _failed(self, what: str, error: Exception) -> None:
        log.warning("%s passed through unhandled: %s", what, describe(error))
        self._emit(PassedThrough("internal_error"))


def caller_of(settings: Settings, key: Any) -> Caller:
    """Whom an accepted key (LiteLLM's UserAPIKeyAuth) stands for. The key itself goes nowhere: LiteLLM knows it by
    its hash."""
    tenant = tenant_of(
        settings.tenant,
        key_hash=getattr(key, "token", None) or getattr(key, "api_key", None),
        user_id=getattr(key, "user_id", None),
        team_id=getattr(key, "team_id", None),
        org_id=getattr(key, "org_id", None),
    )
    role = getattr(key, "user_role", None)
    return Caller(
        tenant,
        admin=getattr(role, "value", role) == "proxy_admin",
        keys=tuple(name for name in (getattr(key, "key_alias", None), getattr(key, "token", None)) if name),
        team=getattr(key, "team_id", None) or "",
    )


def _is_refusal(error: Any) -> bool:
    """400, 403 or 422 that is no matter of keys, quotas or the size of the context."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if str(status) not in ("400", "403", "422") or type(error).__name__ in _NO_FAULT_OF_OURS:
        return False
    text = str(error).lower()
    return not any(word in text for word in _NO_FAULT_WORDS)
