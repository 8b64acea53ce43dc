"""Settings: frozen values with their defaults, a YAML file and the environment over them.

`Settings()` are the built-in defaults and read nothing. `Settings.load()` reads the file that
`PROXY_PLUGIN_CONFIG` names (or the given one) and lays `PROXY_PLUGIN_<SECTION>__<KEY>` (top level:
`PROXY_PLUGIN_<KEY>`) over it. An unknown key or a bad value raises `SettingsError`, one line that
names the file and the key. Every field is documented in config/plugin.yaml, and a test holds both equal.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from proxy_plugin.history.dialects import ALIASES, DIALECTS

ENV_PREFIX = "PROXY_PLUGIN_"
ENV_OTHER = frozenset({"PROXY_PLUGIN_CONFIG", "PROXY_PLUGIN_REDIS_URL"})
"""Variables with the prefix that are no settings."""


class SettingsError(ValueError):
    """A setting that cannot be used; one line that names where it comes from and which it is."""


def _at_least(minimum: float, default: Any) -> Any:
    return field(default=default, metadata={"min": minimum})


class _Validated:
    """Checks choices and lower bounds when a value is built directly, not only when a file is loaded."""

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


@dataclass(frozen=True, slots=True)
class Collapse(_Validated):
    CHOICES: ClassVar = {"policy": ("always", "never"), "summary_role": ("auto", "system", "user", "assistant")}

    policy: Literal["always", "never"] = "always"
    summary_role: Literal["auto", "system", "user", "assistant"] = "auto"


@dataclass(frozen=True, slots=True)
class Limits(_Validated):
    max_messages: int = _at_least(1, 5_000)
    max_bytes: int = _at_least(1, 16_000_000)
    repair_max_messages: int = _at_least(1, 50_000)
    repair_max_bytes: int = _at_least(1, 64_000_000)


@dataclass(frozen=True, slots=True)
class Deadlines(_Validated):
    store_ms: int = _at_least(1, 50)
    total_ms: int = _at_least(1, 250)


@dataclass(frozen=True, slots=True)
class Store(_Validated):
    url: str = ""
    session_ttl_s: int = _at_least(1, 86_400)
    snapshot_ttl_s: int = _at_least(1, 3_600)
    embedded: bool = True
    embedded_port: int = _at_least(1, 16_379)
    embedded_dir: str = ""
    breaker_failures: int = _at_least(1, 5)
    breaker_reset_ms: int = _at_least(1, 1_000)
    backlog_bytes: int = _at_least(0, 64_000_000)
    honour_store_false: bool = False


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
    CHOICES: ClassVar = {"mode": ("enforce", "audit", "off"), "tenant": ("key", "user", "team", "org")}

    mode: Literal["enforce", "audit", "off"] = "enforce"
    tenant: Literal["key", "user", "team", "org"] = "key"
    collapse: Collapse = field(default_factory=Collapse)
    limits: Limits = field(default_factory=Limits)
    deadlines: Deadlines = field(default_factory=Deadlines)
    store: Store = field(default_factory=Store)
    http: Http = field(default_factory=Http)
    targets: Targets = field(default_factory=Targets)

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
    """Dotted name -> section class (None for a plain value)."""
    names: dict[str, type | None] = {}
    for f in fields(cls):
        section = getattr(f, "default_factory", None)
        names[f.name] = section if is_dataclass(section) else None  # type: ignore[assignment]
        if isinstance(section, type) and is_dataclass(section):
            names.update({f"{f.name}.{inner.name}": None for inner in fields(section)})
    return names


def _unknown(where: str, key: str, known: Any) -> SettingsError:
    close = difflib.get_close_matches(key, list(known), 1, 0.6)
    return SettingsError(f"{where}: unknown setting {key!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))


def _validate(cls: type[Settings], values: dict[str, Any], file: str, env: Mapping[str, str]) -> Settings:
    # Imported here: it takes longer to import than everything else together.
    from pydantic import ValidationError, create_model
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

    known = _known_keys(cls)
    variables = {ENV_PREFIX + name.replace(".", "__").upper(): name for name, section in known.items() if not section}
    for variable in env:
        if variable.startswith(ENV_PREFIX) and variable not in ENV_OTHER and variable not in variables:
            raise _unknown("environment", variable, variables)

    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in env.items()}

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


def _type(cls: type, name: str) -> Any:
    from typing import get_type_hints

    return get_type_hints(cls)[name]


def _default(f: Any) -> Any:
    from pydantic import Field

    return Field(default_factory=f.default_factory) if callable(f.default_factory) else f.default
