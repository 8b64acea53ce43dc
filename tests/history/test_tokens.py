"""The estimate of tokens against o200k_base, on texts of the kinds that agents send and get."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_plugin.history.model import Call, Message
from proxy_plugin.history.tokens import message_tokens, tokens_of
from tests.benchmarks.conversations import conversation

LITELLM = importlib.util.find_spec("litellm")
ROOT = Path(__file__).parents[2]


def o200k(text: str) -> int:
    """LiteLLM carries the tokenizer's file, so that nothing is downloaded."""
    assert LITELLM is not None and LITELLM.origin is not None
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(LITELLM.origin).parent / "litellm_core_utils" / "tokenizers"))
    import tiktoken

    return len(tiktoken.get_encoding("o200k_base").encode(text, disallowed_special=()))


def chats() -> str:
    return "\n".join(str(message["content"]) for message in conversation(80) if message["role"] != "tool")


TEXTS = {
    "python": (ROOT / "proxy_plugin" / "history" / "repair.py").read_text(),
    "english": (ROOT / "README.md").read_text(),
    "json": json.dumps([{"order_id": f"W{n * 7919}", "status": "delivered", "total": n * 1.5} for n in range(80)]),
    "yaml": (ROOT / "config" / "plugin.yaml").read_text(),
    "chat": chats(),
    "listing": "\n".join(f"-rw-r--r-- 1 app app {n * 977} src/module_{n}/handler_{n}.py" for n in range(80)),
    "traceback": 'Traceback (most recent call last):\n  File "/srv/app/main.py", line 3, in run\nKeyError: 42\n' * 20,
    "german": "Die Verhandlungen über die Zuständigkeit der Behörden dauern schon länger als ein Jahr. " * 20,
    "russian": "Прочитай файл конфигурации и исправь ошибку в третьей строке. " * 20,
    "chinese": "请读取配置文件并修复第三行中的错误，然后运行测试。" * 20,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_the_estimate_is_near_the_tokenizer(kind: str) -> None:
    ratio = tokens_of(TEXTS[kind]) / o200k(TEXTS[kind])
    assert 0.75 < ratio < 1.4, ratio


def test_all_together_it_is_nearer() -> None:
    ratio = sum(map(tokens_of, TEXTS.values())) / sum(map(o200k, TEXTS.values()))
    assert 0.9 < ratio < 1.1, ratio


@given(st.text(), st.text())
def test_a_longer_text_never_has_fewer(text: str, more: str) -> None:
    assert tokens_of(text) <= tokens_of(text + more) <= tokens_of(text) + tokens_of(more)


def test_a_message_counts_its_texts_calls_and_media() -> None:
    text = Message("user", "Where is my order?")
    assert message_tokens(text) == 4 + tokens_of("Where is my order?")
    parts = [{"type": "text", "text": "Where is my order?"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert message_tokens(text._replace(content=parts)) == message_tokens(text) + 1000
    call = Message("assistant", None, (Call("1", "find", '{"q": 1}'),))
    assert message_tokens(call) == 4 + 8 + tokens_of("find") + tokens_of('{"q": 1}')
    assert message_tokens(Message("other", [None, 3, {"type": "x", "y": "\ud800"}])) > 4
