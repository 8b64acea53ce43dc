"""llm, the command line program: `llm TASK`, then `llm -c TASK`, each a process of its own. The ids are read from
its log, and the tools' runs are counted there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tools import API, API_KEY, BASE_URL, FUNCTIONS, HEADERS, MODEL, STREAM, TASKS

LLM = str(Path(sys.executable).with_name("llm"))
TOOLS = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from tools import {', '.join(FUNCTIONS)}"

home = Path.cwd() / "llm"
home.mkdir()
model = {
    "model_id": "mine",
    "model_name": MODEL,
    "api_base": BASE_URL,
    "api_key_name": "proxy",
    "headers": HEADERS,
    "supports_tools": True,
    "responses": API == "responses",
}
(home / "extra-openai-models.yaml").write_text(yaml.safe_dump([model]))
(home / "keys.json").write_text(json.dumps({"proxy": API_KEY}))


def llm(*arguments: str) -> str:
    environ = os.environ | {"LLM_USER_PATH": str(home)}
    return subprocess.run([LLM, *arguments], env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout


def ask(number: int, task: str) -> str:
    options = [] if STREAM else ["--no-stream"]
    return llm("prompt", *(["-c"] if number else ["-m", "mine"]), "--functions", TOOLS, *options, task)


texts = [ask(number, task) for number, task in enumerate(TASKS)]
log: list[dict[str, Any]] = json.loads(llm("logs", "--json", "-n", "0"))
log.sort(key=lambda response: response["datetime_utc"])
ids = [call["tool_call_id"] for response in log for call in response.get("tool_calls", [])]
runs = sum(len(response.get("tool_results", [])) for response in log)
print(json.dumps({"texts": texts, "ids": ids, "runs": runs}))
