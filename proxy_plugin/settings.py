"""Settings: frozen values with their defaults, a YAML file and the environment over them.

`Settings()` are the built-in defaults and read nothing. `Settings.load()` reads the file that
`PROXY_PLUGIN_CONFIG` names (or the given one) and lays `PROXY_PLUGIN_<SECTION>__<KEY>` (top level:
`PROXY_PLUGIN_<KEY>`) over it. An unknown key or a bad value raises `SettingsError`, one line that
names the file and the key. Every field is documented in config/plugin.yaml, and a test holds both equal.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from proxy_plugin.history.dialects import ALIASES, DIALECTS

ENV_PREFIX = "PROXY_PLUGIN_"
ENCRYPTION_KEYS = "PROXY_PLUGIN_ENCRYPTION_KEYS"
ENV_OTHER = frozenset({"PROXY_PLUGIN_CONFIG", "PROXY_PLUGIN_REDIS_URL", ENCRYPTION_KEYS})
"""Variables with the prefix that are no settings."""


class SettingsError(ValueError):
    """A setting that cannot be used; one line that names where it comes from and which it is."""


def _at_least(minimum: float, default: Any, at_most: float | None = None) -> Any:
    return field(default=default, metadata={"min": minimum, "max": at_most})


class _Validated:
    """Checks choices and bounds when a value is built directly, not only when a file is loaded."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            choices = self.CHOICES.get(f.name)
            if choices and value not in choices:
                raise ValueError(f"{f.name}: {value!r} is not one of {', '.join(choices)}")
            minimum = f.metadata.get("min")
            if minimum is not None and not value >= minimum:
                raise ValueError(f"{f.name}: {value!r} is less than {minimum}")
            maximum = f.metadata.get("max")
            if maximum is not None and not value <= maximum:
                raise ValueError(f"{f.name}: {value!r} is more than {maximum}")


@dataclass(frozen=True, slots=True)
class Collapse(_Validated):
    CHOICES: ClassVar = {
        "policy": ("always", "economical", "never"),
        "summary_role": ("auto", "system", "user", "assistant"),
    }

    policy: Literal["always", "economical", "never"] = "always"
    summary_role: Literal["auto", "system", "user", "assistant"] = "auto"
    keep_recent_subtasks: int = _at_least(0, 0)
    verbatim_budget_tokens: int = _at_least(0, 0)
    min_tokens: int = _at_least(0, 0)
    exclude_tools: tuple[str, ...] = ()
    plan_tools: tuple[str, ...] = ()
    price_cached: float = _at_least(0, 0.1)
    price_write: float = _at_least(0, 1.25)


@dataclass(frozen=True, slots=True)
class Running(_Validated):
    trigger_fraction: float = _at_least(0.05, 0.7, at_most=1)
    keep_rounds: int = _at_least(1, 5)
    window_tokens: int = _at_least(0, 0)


@dataclass(frozen=True, slots=True)
class Reset(_Validated):
    max_messages: int = _at_least(0, 0)
    max_tokens: int = _at_least(0, 0)
    max_age_s: int = _at_least(0, 0)
    keep: str = "none"
    marker: str = ""

    def __post_init__(self) -> None:
        _Validated.__post_init__(self)
        kind, separator, number = self.keep.partition(":")
        counted = kind in ("first", "last") and number.isascii() and number.isdigit()
        if not (counted or (kind in ("none", "system") and not separator)):
            raise ValueError(f"keep: {self.keep!r} is not one of none, system, first:N, last:N")

    @property
    def kept(self) -> tuple[str, int]:
        """One of "none", "system", "first" or "last", and how many messages at most."""
        kind, _, number = self.keep.partition(":")
        return kind, int(number or 0)

    @property
    def possible(self) -> bool:
        return bool(self.max_messages or self.max_tokens or self.max_age_s)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model at start-up, and does not change while the proxy runs.

    price_cached, price_write: prices of input tokens relative to one that is not cached; None: unknown.
    window_tokens: how many tokens it reads at most; 0: unknown."""

    price_cached: float | None = None
    price_write: float | None = None
    window_tokens: int = 0


MODES = ("enforce", "audit", "off")
_Override = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Overrides:
    """Name of a model, key or team -> section ("collapse", "running") -> the values that differ there; or "mode" ->
    the mode.

    A key is named by its alias or by its hash, never by itself."""

    SECTIONS: ClassVar[Mapping[str, type[Collapse] | type[Running]]] = {"collapse": Collapse, "running": Running}

    models: Mapping[str, _Override] = field(default_factory=dict)
    keys: Mapping[str, _Override] = field(default_factory=dict)
    teams: Mapping[str, _Override] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in ("models", "keys", "teams"):
            checked = {
                name: {section: _overriding(section, given, f"{kind}.{name}") for section, given in override.items()}
                for name, override in getattr(self, kind).items()
            }
            object.__setattr__(self, kind, checked)


def _overriding(section: str, given: Any, where: str) -> Any:
    """The mode, or some fields of a section, checked and converted as those of the section itself are."""
    if section == "mode":
        mode = "off" if given is False else given  # YAML reads off as false
        if mode not in MODES:
            raise ValueError(f"{where}.mode: {given!r} is not one of {', '.join(MODES)}")
        return mode
    cls = Overrides.SECTIONS.get(section)
    if cls is None:
        raise ValueError(f"{where}: {section!r} is not one of {', '.join(Overrides.SECTIONS)}, mode")
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}.{section}: {given!r} is no mapping")
    return _part_of(cls, given, f"{where}.{section}")


def _part_of(cls: type[Collapse] | type[Running], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {f.name: f for f in fields(cls)}
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}")
        kind = type(known[key].default)
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        elif kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{where}.{key}: {value!r} is no {_KINDS[kind]}")
        converted[key] = value
    try:
        cls(**converted)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None
    return converted


_KINDS = {int: "whole number", float: "number", str: "text", tuple: "list"}


@dataclass(frozen=True, slots=True)
class Limits(_Validated):
    max_messages: int = _at_least(1, 5_000)
    max_bytes: int = _at_least(1, 16_000_000)
    repair_max_messages: int = _at_least(1, 50_000)
    repair_max_bytes: int = _at_least(1, 64_000_000)
    memo_bytes: int = _at_least(0, 256_000_000)


@dataclass(frozen=True, slots=True)
class Deadlines(_Validated):
    store_ms: int = _at_least(1, 50)
    total_ms: int = _at_least(1, 250)


@dataclass(frozen=True, slots=True)
class Store(_Validated):
    CHOICES: ClassVar = {"content": ("full", "structure")}

    url: str = ""
    content: Literal["full", "structure"] = "full"
    session_ttl_s: int = _at_least(1, 86_400)
    snapshot_ttl_s: int = _at_least(1, 3_600)
    embedded: bool = True
    embedded_port: int = _at_least(1, 16_379)
    embedded_dir: str = ""
    breaker_failures: int = _at_least(1, 5)
    breaker_reset_ms: int = _at_least(1, 1_000)
    backlog_bytes: int = _at_least(0, 64_000_000)
    max_session_bytes: int = _at_least(0, 256_000_000)
    max_session_messages: int = _at_least(0, 50_000)
    max_tenant_bytes: int = _at_least(0, 0)
    keep_subtasks: int = _at_least(0, 0)
    keep_requests: int = _at_least(0, 1_000)
    honour_store_false: bool = False


@dataclass(frozen=True, slots=True)
class Recovery(_Validated):
    lease_s: int = _at_least(1, 15)


@dataclass(frozen=True, slots=True)
class Http(_Validated):
    prefix: str = "/api/v1"
    open_metrics: bool = False


@dataclass(frozen=True, slots=True)
class Targets(_Validated):
    providers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for model, provider in self.providers.items():
            if provider not in DIALECTS and provider not in ALIASES:
                raise ValueError(f"providers: {model}: {provider!r} is not one of {', '.join(sorted(DIALECTS))}")


@dataclass(frozen=True, slots=True)
class Settings(_Validated):
    CHOICES: ClassVar = {"mode": MODES, "tenant": ("key", "user", "team", "org")}

    mode: Literal["enforce", "audit", "off"] = "enforce"
    tenant: Literal["key", "user", "team", "org"] = "key"
    collapse: Collapse = field(default_factory=Collapse)
    running: Running = field(default_factory=Running)
    reset: Reset = field(default_factory=Reset)
    overrides: Overrides = field(default_factory=Overrides)
    limits: Limits = field(default_factory=Limits)
    deadlines: Deadlines = field(default_factory=Deadlines)
    store: Store = field(default_factory=Store)
    recovery: Recovery = field(default_factory=Recovery)
    http: Http = field(default_factory=Http)
    targets: Targets = field(default_factory=Targets)

    def for_request(
        self, *, model: str = "", key: Sequence[str] = (), team: str = "", facts: ModelFacts | None = None
    ) -> Settings:
        """The settings that hold for one request: a pure function, so that a path is decided alike wherever it
        is (P4). What is known of the model fills in where nothing was set for that model, and a window that
        was set stays; then the overrides of the model, of the team and of the key, the last one winning.

        model  as the client named it          key   the alias and the hash of the API key, those there are
        team   the team's id or alias          facts of the model, fixed at start-up"""
        mode, collapse, running = self.mode, self.collapse, self.running
        if facts is not None:
            collapse = replace(
                collapse,
                price_cached=collapse.price_cached if facts.price_cached is None else facts.price_cached,
                price_write=collapse.price_write if facts.price_write is None else facts.price_write,
            )
            running = replace(running, window_tokens=running.window_tokens or facts.window_tokens)
        given = self.overrides
        found = [given.models.get(model), given.teams.get(team), *[given.keys.get(name) for name in key]]
        for override in found:
            if override:
                mode = override.get("mode", mode)
                collapse = replace(collapse, **override.get("collapse", {}))
                running = replace(running, **override.get("running", {}))
        if mode == self.mode and collapse is self.collapse and running is self.running:
            return self
        return replace(self, mode=mode, collapse=collapse, running=running)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        beside: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Reads `path`, else $PROXY_PLUGIN_CONFIG, else `config/plugin.yaml` in the folder `beside` if it
        is there; then the environment. Raises SettingsError."""
        env = os.environ if environ is None else environ
        chosen = path or env.get("PROXY_PLUGIN_CONFIG") or None
        if chosen is None and beside is not None and (Path(beside) / "config" / "plugin.yaml").is_file():
            chosen = Path(beside) / "config" / "plugin.yaml"
        values = _read_yaml(Path(chosen)) if chosen is not None else {}
        return _validate(cls, values, str(chosen), env)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is no valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: must hold settings as `key: value`, not a {type(values).__name__}")
    return values


def _known_keys(cls: type) -> dict[str, type | None]:
    """Dotted name -> class of a section, `tuple` or `dict` for a list or a mapping, None for a plain value."""
    names: dict[str, type | None] = {}
    for f in fields(cls):
        section = f.default_factory
        if isinstance(section, type) and is_dataclass(section):
            names[f.name] = section
            names.update({f"{f.name}.{inner.name}": _container(inner) for inner in fields(section)})
        else:
            names[f.name] = _container(f)
    return names


def _container(f: Any) -> type | None:
    if f.default_factory is dict:
        return dict
    return tuple if isinstance(f.default, tuple) else None


def _unknown(where: str, key: str, known: Any) -> SettingsError:
    close = difflib.get_close_matches(key, list(known), 1, 0.6)
    return SettingsError(f"{where}: unknown setting {key!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))


def _validate(cls: type[Settings], values: dict[str, Any], file: str, env: Mapping[str, str]) -> Settings:
    # Imported here: it takes longer to import than everything else together.
    from pydantic import ValidationError, create_model
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

    known = _known_keys(cls)
    variables = {ENV_PREFIX + name.replace(".", "__").upper() for name, kind in known.items() if not is_dataclass(kind)}
    for variable in env:
        if variable.startswith(ENV_PREFIX) and variable not in ENV_OTHER and variable not in variables:
            raise _unknown("environment", variable, variables)

    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in env.items()}

        def __call__(self) -> dict[str, Any]:
            given = super().__call__()
            for section, values in given.items():
                if isinstance(values, dict):
                    given[section] = {key: _from_json(known.get(f"{section}.{key}"), v) for key, v in values.items()}
            return given

    class Loader(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid")

        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:
            return Source(settings_cls), init_settings

    definitions: dict[str, Any] = {f.name: (_type(cls, f.name), _default(f)) for f in fields(cls)}
    model = create_model("Loaded", __base__=Loader, **definitions)
    try:
        loaded = model(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = "environment" if ENV_PREFIX + key.replace(".", "__").upper() in env else file
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise _unknown(where, key, known) from None
        message = " ".join(str(first.get("ctx", {}).get("error") or first["msg"]).split())
        raise SettingsError(f"{where}: {key}: {message}" if key else f"{where}: {message}") from None
    except Exception as error:  # pydantic-settings wraps unreadable variables in an error of its own
        raise SettingsError(f"environment: {' '.join(str(error).split())}") from None
    return cls(**{f.name: getattr(loaded, f.name) for f in fields(cls)})


def _from_json(kind: type | None, value: Any) -> Any:
    """A list or a mapping that the environment holds as JSON; text that is none stays, to be refused."""
    if kind not in (tuple, dict) or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _type(cls: type, name: str) -> Any:
    from typing import get_type_hints

    return get_type_hints(cls)[name]


def _default(f: Any) -> Any:
    from pydantic import Field

    return Field(default_factory=f.default_factory) if callable(f.default_factory) else f.default
