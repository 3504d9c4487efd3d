"""Which models are asked, and why; read from the settings alone, so that `make up` can say it too."""

from dataclasses import dataclass

from agent_service.models.places import is_private
from agent_service.settings import DEFAULT_BASE_URL, ModelSettings
from service_kit.settings import ConfigurationError

PLAYBOOK = "playbook"
OPENAI, GGUF = "openai:", "gguf:"
AUTO = "auto"
# Small and quick; it must not think before it greets.
AUTO_MODEL = "openai:gpt-5-mini"
AUTO_EXTRA = {"reasoning_effort": "minimal"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The first model with the reason for it, and those that stand in, without the playbook."""

    name: str
    why: str
    fallbacks: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """All language models in the order in which they are asked."""
        return () if self.name == PLAYBOOK else (self.name, *self.fallbacks)


def choose(settings: ModelSettings) -> Choice:
    """What the settings say. Errors: ConfigurationError, with the variable's name."""
    name, why = _first(settings)
    fallbacks = [each.strip() for each in settings.fallback_models.split(",") if each.strip()]
    for variable, each in (("SDR_AGENT_MODEL", name), *(("SDR_AGENT_FALLBACK_MODELS", each) for each in fallbacks)):
        _check(variable, each, settings)
    others = (each for each in dict.fromkeys(fallbacks) if each not in (name, PLAYBOOK))
    return Choice(name=name, why=why, fallbacks=tuple(others))


def _first(settings: ModelSettings) -> tuple[str, str]:
    if settings.model != AUTO:
        return settings.model, "SDR_AGENT_MODEL says so"
    if not settings.openai_api_key.get_secret_value():
        return PLAYBOOK, "no OPENAI_API_KEY is set"
    if settings.openai_base_url != DEFAULT_BASE_URL:
        return PLAYBOOK, "OPENAI_BASE_URL is set, but SDR_AGENT_MODEL does not say which model to ask there"
    return AUTO_MODEL, "OPENAI_API_KEY is set"


def _check(variable: str, name: str, settings: ModelSettings) -> None:
    kind, _, rest = name.partition(":")
    if name == PLAYBOOK or (f"{kind}:" in (OPENAI, GGUF) and rest.strip() == rest != ""):
        needs_key = name.startswith(OPENAI) and not is_private(settings.openai_base_url)
        if needs_key and not settings.openai_api_key.get_secret_value():
            raise ConfigurationError(
                f"{variable}: {name} needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs no key"
            )
        return
    raise ConfigurationError(
        f"{variable}: there is no model {name!r}; it is playbook, openai:NAME or gguf:PATH, or is left out"
    )
