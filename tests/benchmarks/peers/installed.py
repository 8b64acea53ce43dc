"""Tools whose own code runs here. Each package is imported when its editor is made."""

from __future__ import annotations

import asyncio
import json
import logging
from importlib import import_module
from typing import Any

from tests.benchmarks.peers.peer import TRIGGER_TOKENS, Editor, Message, Peer
from tests.benchmarks.peers.specs import extract
from tests.benchmarks.peers.text import content_text

MODEL = "gpt-4o"
KEEP = 3


def _quiet(logger: str) -> None:
    """A tool that logs what it cannot do would drown the table; its failures are counted."""
    logging.getLogger(logger).setLevel(logging.CRITICAL)


def _result_text(messages: list[Message], index: int, content: Any) -> Message:
    """The message at `index`, with the result that a tool left of it."""
    message = messages[index]
    return message if content == content_text(message) else {**message, "content": content}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {"raw": arguments}


# LiteLLM


class LiteLLM(Editor):
    """Both of the following fail on the null content of an assistant message with calls, so they get ""."""

    def __init__(self) -> None:
        _quiet("LiteLLM")

    def read(self, messages: list[Message]) -> Any:
        return [message if message.get("content") is not None else {**message, "content": ""} for message in messages]


class LiteLLMCompress(LiteLLM):
    """`litellm.compress`: BM25 against the newest user message; the target is its default, 70% of the trigger."""

    def edit(self, native: list[Message]) -> list[Message]:
        from litellm.compression.compress import compress

        return list(compress(native, model=MODEL, compression_trigger=TRIGGER_TOKENS)["messages"])


class LiteLLMTrim(LiteLLM):
    """`litellm.utils.trim_messages`."""

    def edit(self, native: list[Message]) -> list[Message]:
        from litellm.utils import trim_messages

        return list(trim_messages(native, model=MODEL, max_tokens=TRIGGER_TOKENS))


class LiteLLMSanitizer(Editor):
    """What `litellm.modify_params: true` does to tool messages on the way to Anthropic; it saves nothing."""

    def edit(self, native: Any) -> Any:
        import litellm
        from litellm.litellm_core_utils.prompt_templates.factory import sanitize_messages_for_tool_calling

        litellm.modify_params = True
        try:
            return sanitize_messages_for_tool_calling(native)
        finally:
            litellm.modify_params = False


class LiteLLMClearToolUses(Editor):
    """LiteLLM's own `clear_tool_uses_20250919` for providers that lack it; works on Anthropic messages."""

    spec = {  # noqa: RUF012
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": TRIGGER_TOKENS},
        "keep": {"type": "tool_uses", "value": KEEP},
    }

    def __init__(self) -> None:
        try:
            editors = import_module("litellm.llms.anthropic.pass_through.context_management.editors")
        except ImportError:  # its place in releases before 1.106
            editors = import_module("litellm.llms.anthropic.experimental_pass_through.context_management.editors")
        self.apply = editors.apply_clear_tool_uses_20250919

    def read(self, messages: list[Message]) -> Any:
        self.messages = messages
        return [self._to_anthropic(message) for message in messages]

    def edit(self, native: Any) -> Any:
        return self.apply(model=MODEL, messages=native, tools=None, system=None, edit_spec=self.spec)[0]

    def write(self, native: Any) -> list[Message]:
        return [
            _result_text(self.messages, index, native[index]["content"][0]["content"])
            if message.get("role") == "tool"
            else message
            for index, message in enumerate(self.messages)
        ]

    @staticmethod
    def _to_anthropic(message: Message) -> Message:
        text = content_text(message)
        if message.get("role") == "tool":
            block = {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": text}
            return {"role": "user", "content": [block]}
        blocks: list[Message] = [{"type": "text", "text": text}] if text else []
        for call in message.get("tool_calls") or []:
            function = call["function"]
            blocks.append(
                {
                    "type": "tool_use",
                    "id": call["id"],
                    "name": function["name"],
                    "input": _parsed(function["arguments"]),
                }
            )
        return {"role": message["role"], "content": blocks}


# Headroom


class Headroom(Editor):
    """`headroom.compress` as its LiteLLM callback calls it."""

    options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        _quiet("headroom")
        from headroom import compress

        self.compress = compress

    def edit(self, native: list[Message]) -> list[Message]:
        return list(self.compress(native, model=MODEL, **self.options).messages)


class HeadroomAgent(Headroom):
    """The same in the mode that is documented as lossless and safe for the prompt cache."""

    options = {"mode": "agent"}  # noqa: RUF012


# LangChain


class LangChain(Editor):
    """Messages keep their index as LangChain id, so that what a middleware did not touch leaves as it came.
    The system prompt is the agent's own and never among the messages that a middleware sees."""

    def __init__(self) -> None:
        from langchain_core.messages import convert_to_messages

        self.convert = convert_to_messages
        self.seen = 0

    def read(self, messages: list[Message]) -> Any:
        """The messages that are new since the request before: an agent's state holds the others."""
        self.messages = messages
        new = self.convert(messages[self.seen :])
        for index, message in enumerate(new, self.seen):
            message.id = str(index)
        self.seen = len(messages)
        return [message for message in new if message.type != "system"]

    def write(self, native: Any) -> list[Message]:
        system = [message for message in self.messages if message.get("role") == "system"]
        return [*system, *map(self._to_chat, native)]

    def _to_chat(self, message: Any) -> Message:
        if not (message.id or "").isdigit():
            return {"role": "user", "content": message.text}
        index = int(message.id)
        return _result_text(self.messages, index, message.text) if message.type == "tool" else self.messages[index]


class LangChainClearToolUses(LangChain):
    """`ContextEditingMiddleware` with `ClearToolUsesEdit`; edits the request, never the agent's state."""

    def __init__(self) -> None:
        super().__init__()
        from langchain.agents.middleware import ClearToolUsesEdit, ContextEditingMiddleware, ModelRequest
        from langchain_core.language_models import FakeListChatModel

        self.middleware = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=TRIGGER_TOKENS, keep=KEEP)])
        self.request = ModelRequest(model=FakeListChatModel(responses=[""]), messages=[])
        self.state: list[Any] = []

    def edit(self, native: Any) -> Any:
        self.state += native
        sent: list[Any] = []

        def model(request: Any) -> Any:
            sent.extend(request.messages)

        self.middleware.wrap_model_call(self.request.override(messages=self.state), model)
        return sent


class LangChainSummarization(LangChain):
    """`SummarizationMiddleware` with its defaults (keeps 20 messages), a callable in the place of the model."""

    def __init__(self) -> None:
        super().__init__()
        from langchain.agents.middleware import SummarizationMiddleware
        from langchain_core.language_models import FakeListChatModel

        self.middleware = SummarizationMiddleware(
            FakeListChatModel(responses=[""]),
            trigger=("tokens", TRIGGER_TOKENS),
            summarizer=lambda messages: extract([self._to_chat(message) for message in messages]),
            trim_tokens_to_summarize=None,
        )
        self.state: list[Any] = []

    def edit(self, native: Any) -> Any:
        self.state = [*self.state, *native]
        update = self.middleware.before_model({"messages": self.state}, None)
        if update is not None:
            self.state = [message for message in update["messages"] if message.type != "remove"]
        return self.state


# OpenAI Agents SDK


class AgentsTrimmer(Editor):
    """`agents.extensions.ToolOutputTrimmer` with its defaults; works on Responses items."""

    def __init__(self) -> None:
        from agents.extensions import ToolOutputTrimmer
        from agents.run_config import CallModelData, ModelInputData

        self.trimmer = ToolOutputTrimmer()
        self.wrap = lambda items: CallModelData(ModelInputData(items, None), agent=None, context=None)

    def read(self, messages: list[Message]) -> Any:
        self.messages = messages
        self.places: list[int] = []  # the message of each item
        items: list[Message] = []
        for index, message in enumerate(messages):
            made = list(self._to_items(message))
            items += made
            self.places += [index] * len(made)
        return items

    def edit(self, native: Any) -> Any:
        return self.trimmer(self.wrap(native)).input

    def write(self, native: Any) -> list[Message]:
        out = list(self.messages)
        for index, item in zip(self.places, native, strict=True):
            if item.get("type") == "function_call_output":
                out[index] = _result_text(self.messages, index, item["output"])
        return out

    @staticmethod
    def _to_items(message: Message) -> list[Message]:
        text = content_text(message)
        if message.get("role") == "tool":
            return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": text}]
        calls = message.get("tool_calls") or []
        items: list[Message] = [{"role": message["role"], "content": text}] if text or not calls else []
        items += [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls]
        return items


# Pydantic AI


class PydanticClearToolResults(Editor):
    """`pydantic_ai_harness.ClearToolResults`; what it cleared stays cleared in the run's history.
    `min_clear_tokens` is its documented guard of the prompt cache."""

    def __init__(self) -> None:
        from pydantic_ai import RunContext
        from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
        from pydantic_ai.models.test import TestModel
        from pydantic_ai.usage import RunUsage
        from pydantic_ai_harness import ClearToolResults

        model = TestModel()
        self.clear = ClearToolResults[None](max_tokens=TRIGGER_TOKENS, keep_pairs=KEEP, min_clear_tokens=2_000)
        self.context = RunContext[None](deps=None, model=model, usage=RunUsage(), messages=[])
        self.request = lambda messages: ModelRequestContext(
            model=model, messages=messages, model_settings=None, model_request_parameters=ModelRequestParameters()
        )
        self.runner = asyncio.Runner()
        self.seen = 0

    def read(self, messages: list[Message]) -> Any:
        self.messages = messages
        names = {call["id"]: call["function"]["name"] for m in messages for call in m.get("tool_calls") or []}
        new = [self._to_model(message, names) for message in messages[self.seen :]]
        self.seen = len(messages)
        return new

    def edit(self, native: Any) -> Any:
        history = self.context.messages
        history.extend(native)
        return self.runner.run(self.clear.before_model_request(self.context, self.request(list(history)))).messages

    def write(self, native: Any) -> list[Message]:
        return [
            _result_text(self.messages, index, native[index].parts[0].content)
            if message.get("role") == "tool"
            else message
            for index, message in enumerate(self.messages)
        ]

    @staticmethod
    def _to_model(message: Message, names: dict[str, str]) -> Any:
        from pydantic_ai import messages as form

        text, role = content_text(message), message["role"]
        if role == "assistant":
            calls = message.get("tool_calls") or []
            parts: list[Any] = [form.TextPart(text)] if text else []
            parts += [form.ToolCallPart(c["function"]["name"], c["function"]["arguments"], c["id"]) for c in calls]
            return form.ModelResponse(parts=parts)
        if role == "tool":
            call_id = str(message.get("tool_call_id") or "")
            return form.ModelRequest(parts=[form.ToolReturnPart(names.get(call_id, ""), text, call_id)])
        part = form.SystemPromptPart(text) if role == "system" else form.UserPromptPart(text)
        return form.ModelRequest(parts=[part])


INSTALLED = (
    Peer("headroom-ai", "as its LiteLLM callback calls it", Headroom, "headroom-ai"),
    Peer("headroom-ai, agent mode", 'mode="agent"', HeadroomAgent, "headroom-ai"),
    Peer("litellm.compress", "trigger 8k tokens, target 70%, BM25", LiteLLMCompress, "litellm"),
    Peer("litellm clear_tool_uses", "trigger 8k tokens, keep 3", LiteLLMClearToolUses, "litellm"),
    Peer("litellm.trim_messages", "max_tokens 8k", LiteLLMTrim, "litellm"),
    Peer("litellm modify_params", "on; repair only", LiteLLMSanitizer, "litellm"),
    Peer("LangChain ClearToolUsesEdit", "trigger 8k tokens, keep 3", LangChainClearToolUses, "langchain"),
    Peer(
        "LangChain SummarizationMiddleware",
        "trigger 8k tokens, keep 20 messages, extractive summariser",
        LangChainSummarization,
        "langchain",
    ),
    Peer("openai-agents ToolOutputTrimmer", "defaults", AgentsTrimmer, "openai-agents"),
    Peer(
        "pydantic-ai-harness ClearToolResults",
        "max_tokens 8k, keep_pairs 3, min_clear_tokens 2k",
        PydanticClearToolResults,
        "pydantic-ai-harness",
    ),
)
