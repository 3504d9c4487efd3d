"""Settings from the environment and `.env`, and a start that refuses what it does not understand."""

import os
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import TypeVar

from dotenv import dotenv_values
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from service_kit import logs

OWN_PREFIX = "SDR_"
FOREIGN_PREFIXES = ("EVOLUTION_", "WHATSAPP_", "SUPABASE_", "OPENAI_")
KNOWN_SETTINGS_FILE = Path(__file__).with_name("known_settings.txt")
_KUBERNETES = re.compile(r".+_SERVICE_(HOST|PORT(_\w+)?)|.+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_injected: ContextVar[Mapping[str, str] | None] = ContextVar("injected_settings", default=None)
_log = logs.get(__name__)


class ConfigurationError(Exception):
    """The process cannot start as it is configured; the text is a clear sentence for whoever started it."""


class Settings(BaseSettings):
    """Base of every settings model. Each field has its full variable name as its `validation_alias`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_file=".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if _injected.get() is not None:
            return init_settings, _InjectedSource(settings_cls)
        return init_settings, env_settings, dotenv_settings


T = TypeVar("T", bound=Settings)


class _InjectedSource(EnvSettingsSource):
    """Reads the mapping that `load` has put together instead of the process environment."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in (_injected.get() or {}).items()}


def load(model: type[T], *, environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> T:
    """Read, check and freeze the settings; raises `ConfigurationError` that lists every problem at once."""
    from_file = _read_env_file(env_file)
    from_environ = {name.upper(): value for name, value in (os.environ if environ is None else environ).items()}
    own = names(model)
    problems = _unknown_names({**from_file, **from_environ}, known={*own, *_packaged_names()})
    merged = {**_without_empty(from_file), **_without_empty(from_environ)}
    token = _injected.set(merged)
    try:
        loaded = model()
    except ValidationError as error:
        problems += [_sentence(model, item["loc"], item["type"], item["msg"]) for item in error.errors()]
    except SettingsError:
        # Its text would print the value; the usual cause is a list or an object that is not JSON.
        problems.append(f"one of {', '.join(sorted(own.keys() & merged.keys()))} is not valid JSON")
    finally:
        _injected.reset(token)
    if problems:
        raise ConfigurationError("\n".join(problems)) from None
    return loaded


def names(model: type[BaseSettings]) -> dict[str, FieldInfo]:
    """Every variable name that the model reads, with its field."""
    return {name: info for field, info in model.model_fields.items() for name in _names_of(field, info)}


def is_kubernetes_name(name: str, value: str) -> bool:
    """Whether this is one of the variables that Kubernetes injects for each service of its namespace."""
    return bool(_KUBERNETES.fullmatch(name)) or (name.endswith("_PORT") and "://" in value)


def _names_of(field: str, info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias or field]
    return [choice.upper() for choice in choices if isinstance(choice, str)]


def _unknown_names(given: Mapping[str, str], *, known: set[str]) -> list[str]:
    problems = []
    for name in sorted(given.keys() - known):
        if name.startswith(OWN_PREFIX) and not is_kubernetes_name(name, given[name]):
            nearest = _nearest(name, known, cutoff=0.6)
            hint = f"; did you mean {nearest}?" if nearest else ""
            problems.append(f"{name} is not a setting{hint}")
        elif name.startswith(FOREIGN_PREFIXES) and (nearest := _nearest(name, known, cutoff=0.8)):
            _log.warning("setting_ignored", variable=name, nearest=nearest)
    return problems


def _nearest(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    # The shared prefix would make everything look alike, so only the rest is compared.
    prefix = name.partition("_")[0] + "_"
    rest = {full.removeprefix(prefix): full for full in sorted(known) if full.startswith(prefix)}
    close = get_close_matches(name.removeprefix(prefix), rest, n=1, cutoff=cutoff)
    if close:
        return rest[close[0]]
    ratios = {full: SequenceMatcher(None, name, full).ratio() for full in rest.values()}
    best = max(ratios, key=lambda full: ratios[full], default=None)
    return best if best is not None and ratios[best] > max(cutoff, 0.75) else None


def _sentence(model: type[Settings], location: tuple[int | str, ...], kind: str, message: str) -> str:
    if not location:
        return _plain(message)
    place = str(location[0])
    variable = place.upper()
    field = names(model).get(variable)
    if field is None and place in model.model_fields:
        field = model.model_fields[place]
        variable = _names_of(place, field)[0]
    if kind == "missing":
        meaning = f" ({field.description})" if field is not None and field.description else ""
        return f"{variable} is required but not set{meaning}"
    return f"{variable} is not valid: {_plain(message)}"


def _plain(message: str) -> str:
    bare = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return bare[:1].lower() + bare[1:] if bare.startswith("Input should") else bare


def _without_empty(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value.strip()}


def _read_env_file(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        values = dotenv_values(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from None
    return {name.upper(): value or "" for name, value in values.items()}


def _packaged_names() -> set[str]:
    try:
        lines = KNOWN_SETTINGS_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {line.strip().upper() for line in lines if line.strip() and not line.lstrip().startswith("#")}
