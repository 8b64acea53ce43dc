"""LangChain's models in its own agent, on LangGraph with a checkpointer: one thread, invoked once a task."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from tools import API, API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, STREAM, TASKS, finish


def model() -> BaseChatModel:
    options: Any = {
        "model": MODEL,
        "base_url": BASE_URL,
        "api_key": API_KEY,
        "streaming": STREAM,
        "default_headers": HEADERS,
    }
    if API == "messages":
        return ChatAnthropic(**options)
    return ChatOpenAI(**options, use_responses_api=API == "responses")


agent = create_agent(
    model(),
    list(FUNCTIONS.values()),
    system_prompt="Calculate with the tools alone.",
    checkpointer=InMemorySaver(),
)
thread: Any = {"configurable": {"thread_id": "one"}}
texts = [agent.invoke({"messages": [{"role": "user", "content": task}]}, thread)["messages"][-1].text for task in TASKS]
replies = [message for message in agent.get_state(thread).values["messages"] if isinstance(message, AIMessage)]
finish(texts, [str(call["id"]) for reply in replies for call in reply.tool_calls])
