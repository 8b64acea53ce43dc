"""pydantic-ai: an agent on chat completions and on messages, given its history again with every task."""

from __future__ import annotations

import asyncio

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from tools import API, API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, STREAM, TASKS, finish


def model() -> Model:
    if API == "messages":
        client = AsyncAnthropic(base_url=BASE_URL, api_key=API_KEY, default_headers=HEADERS)
        return AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client))
    openai_client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, default_headers=HEADERS)
    provider = OpenAIProvider(openai_client=openai_client)
    return (OpenAIResponsesModel if API == "responses" else OpenAIChatModel)(MODEL, provider=provider)


async def main() -> None:
    agent = Agent(model(), instructions="Calculate with the tools alone.", tools=list(FUNCTIONS.values()))
    history: list[ModelMessage] = []
    texts: list[str] = []
    for task in TASKS:
        if STREAM:
            async with agent.run_stream(task, message_history=history) as run:
                texts.append(await run.get_output())
                history = run.all_messages()
        else:
            result = await agent.run(task, message_history=history)
            texts.append(result.output)
            history = result.all_messages()
    replies = [message for message in history if isinstance(message, ModelResponse)]
    finish(texts, [part.tool_call_id for reply in replies for part in reply.parts if isinstance(part, ToolCallPart)])


asyncio.run(main())
