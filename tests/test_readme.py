"""The README's commands and code: each Python block runs, each YAML block loads, each command is one that there is.

The shell commands of the page for plan executors run against a real proxy in tests/admin/test_plan_executor.py.
"""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy_plugin.cli import parser
from proxy_plugin.sessions.rights import rights
from proxy_plugin.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in ROOT.rglob("README.md") if not {".venv", ".clients", "node_modules"} & set(page.parts))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|proxy-plugin|python -m tests\.)[^`]*)`")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
CONFIG_KEYS = {"model_list", "litellm_settings", "general_settings", "router_settings"}
FOREIGN = {"pip", "export", "litellm", "echo", "curl", "docker", "helm", "kubectl", "openssl", "redis-cli", "systemctl"}
"""Commands that are not ours, and so are only read."""


def blocks(*languages: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.parent.name}-{language}-{number}")
        for page in PAGES
        for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if language in languages
    ]


def commands() -> list[Any]:
    """Every line of a shell block, and every command of ours in the text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = "".join(block for language, block in FENCE.findall(text) if language in ("bash", "sh"))
        lines = [line for line in shell.replace("\\\n", " ").splitlines() if re.match(r"[a-zA-Z]", line)]
        found += [pytest.param(line, id=line[:60]) for line in [*lines, *INLINE.findall(FENCE.sub("", text))]]
    return found


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text: str) -> None:
    exec(compile(text, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_a_part_of_a_config_or_settings_that_load(text: str, tmp_path: Path) -> None:
    loaded = yaml.safe_load(text)
    if set(loaded) & CONFIG_KEYS:
        assert set(loaded) <= CONFIG_KEYS
        return
    file = tmp_path / "plugin.yaml"
    file.write_text(text)
    Settings.load(file, environ={})


@pytest.mark.parametrize("command", commands())
def test_commands_are_there(command: str) -> None:
    if command.split()[0] in FOREIGN:
        return
    words = shlex.split(command.replace("…", ""), comments=True)
    while re.match(r"\w+=", words[0]):
        words.pop(0)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif words[0] == "python":
        module = words[words.index("-m") + 1]
        assert find_spec(module) is not None
    else:
        assert words[0] == "proxy-plugin"
        assert known(words[1:]), command


def known(arguments: list[str]) -> bool:
    """Whether our command takes such a line, or says how with --help."""
    named = [word for word in arguments if re.fullmatch(r"[a-z]+", word)][:2]
    for length in range(len(named), 0, -1):
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([*named[:length], "--help"])
        if ended.value.code == 0:
            return True
    return not arguments


def test_the_rule_for_a_user_of_redis_is_the_one_that_doctor_prints() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^user litellm on >PASSWORD (.+)$", text, re.MULTILINE)
    assert shown and set(rights().split()) == set(shown[1].split())


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            if "://" in target:
                continue
            there = page.parent / file if file else page
            assert there.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(there.read_text(encoding="utf-8")), f"{page.name}: {target}"


def anchors(text: str) -> set[str]:
    """Of the headings, as they are made where Markdown is shown."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}
