"""Checks of a LiteLLM config file: does it load the plugin, and in a way that works."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from proxy_plugin.doctor.finding import Finding, error, ok, warning

HANDLER = "proxy_plugin.handler"
_PACKAGE_CALLBACKS = (1, 95)
"""LiteLLM before this loads callbacks from files beside the config only."""
_WRONG_LISTS = ("success_callback", "failure_callback", "input_callback", "service_callback")


def check_config(path: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Everything that can be said of the file without starting a proxy."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        yield error("config", f"{path}: {problem.strerror or problem}", "name the file that the proxy is started with")
        return
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        yield error("config", f"{path}: is no valid YAML: {' '.join(str(problem).split())}", "mend the file")
        return
    if not isinstance(config, dict):
        yield error("config", f"{path}: holds no settings", "see README, “Add it to your proxy”")
        return
    yield ok("config", str(path))
    yield from _callbacks(config, path.resolve().parent)
    yield from _shadows(path.resolve().parent)
    yield from _master_key(config, environ)
    if not config.get("model_list"):
        yield warning("models", "the config has no model_list", "add models, or keep them in LiteLLM's database")


def _callbacks(config: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    section = config.get("litellm_settings")
    settings: Mapping[str, Any] = section if isinstance(section, dict) else {}
    listed = settings.get("callbacks")
    names = [listed] if isinstance(listed, str) else [str(entry) for entry in listed or [] if entry]
    old = _litellm_release() < _PACKAGE_CALLBACKS
    shims = [name for name in names if _is_shim(folder, name)]
    cure = f'litellm_settings: {{callbacks: ["{HANDLER}"]}}'
    if HANDLER in names and old:
        text = f"this LiteLLM (before {'.'.join(map(str, _PACKAGE_CALLBACKS))}) loads callbacks from files only"
        yield error("callback", text, "see README, “Older LiteLLM”, for the file of one line")
    elif names.count(HANDLER) + len(shims) > 1:
        yield warning("callback", "the plugin is named more than once", f"keep one: {cure}")
    elif HANDLER in names or shims:
        yield ok("callback", f"litellm_settings.callbacks names {HANDLER if HANDLER in names else shims[0]}")
    elif wrong := [name for name in names if name.startswith("proxy_plugin")]:
        yield error("callback", f"litellm_settings.callbacks names {wrong[0]}", cure)
    elif elsewhere := [name for name in _WRONG_LISTS if HANDLER in str(settings.get(name))]:
        yield error("callback", f"the plugin stands under {elsewhere[0]}, where it sees no request", cure)
    elif "callbacks" in config:
        yield error("callback", "callbacks stands at the top level of the file, where LiteLLM reads none", cure)
    else:
        yield error("callback", "the config does not load the plugin", cure)
    if "prometheus" not in names:
        yield ok("exposition", "LiteLLM's own /metrics is off: scrape the plugin's, GET /metrics below http.prefix")


def _is_shim(folder: Path, name: str) -> bool:
    """Whether a callback is a file beside the config that imports the plugin's handler."""
    module, _, attribute = name.rpartition(".")
    file = folder / (module.replace(".", "/") + ".py")
    return attribute == "handler" and module != "proxy_plugin" and file.is_file() and "proxy_plugin" in file.read_text()


def _shadows(folder: Path) -> Iterator[Finding]:
    if (folder / "proxy_plugin.py").exists():
        yield error("shadowing", "a file proxy_plugin.py beside the config stands for the package", "rename it")
    elif (folder / "proxy_plugin" / "handler.py").exists():
        yield error("shadowing", "proxy_plugin/handler.py beside the config stands for the plugin's", "rename it")


def _master_key(config: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Finding]:
    section = config.get("general_settings")
    settings: Mapping[str, Any] = section if isinstance(section, dict) else {}
    value = settings.get("master_key")
    if isinstance(value, str) and (named := re.fullmatch(r"os\.environ/(\w+)", value)):
        if environ.get(named[1]):
            yield ok("master key", f"from ${named[1]}")
        else:
            yield warning("master key", f"${named[1]} is not set here", "set it where the proxy is started")
    elif value or environ.get("LITELLM_MASTER_KEY"):
        yield ok("master key", "set")
    else:
        cure = "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}"
        yield warning("master key", "none: every caller is one tenant, and sees every session", cure)


def _litellm_release() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", version("litellm"))[:2])
    except PackageNotFoundError:
        return _PACKAGE_CALLBACKS  # another check says that it is missing
