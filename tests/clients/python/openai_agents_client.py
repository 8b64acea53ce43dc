"""openai-agents: an agent on chat completions and on responses, with the library's SQLite session."""

from __future__ import annotations

import asyncio

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    ToolCallItem,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from tools import API, API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, STREAM, TASKS, finish

MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, default_headers=HEADERS)
    agent = Agent(
        name="Calculator",
        instructions="Calculate with the tools alone.",
        model=MODELS[API](model=MODEL, openai_client=client),
        tools=[function_tool(function) for function in FUNCTIONS.values()],
    )
    session = SQLiteSession("one", "session.db")
    texts: list[str] = []
    ids: list[str] = []
    for task in TASKS:
        if STREAM:
            result = Runner.run_streamed(agent, task, session=session)
            async for _ in result.stream_events():
                pass
        else:
            result = await Runner.run(agent, task, session=session)
        texts.append(result.final_output)
        ids += [str(item.raw_item.call_id) for item in result.new_items if isinstance(item, ToolCallItem)]
    session.close()
    finish(texts, ids)


asyncio.run(main())
