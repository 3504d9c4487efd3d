"""What the four processes would refuse at their start. It imports half of the system, so it is imported late."""

from agent_service.models.choice import GGUF, choose
from agent_service.persona_source import PersonaSource
from agent_service.settings import AgentSettings
from buffer_service.settings import BufferSettings
from context_service.settings import ContextSettings
from ingress.app import check
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.settings import IngressSettings
from service_kit.clock import SystemClock
from service_kit.settings import ConfigurationError, load


def check_all() -> None:
    """Look at all settings of all of them. Errors: ConfigurationError with a line for each that is wrong."""
    problems = []
    for model in (BufferSettings, ContextSettings, AgentSettings, IngressSettings, EvolutionSettings):
        try:
            load(model)
        except ConfigurationError as error:
            problems.append(str(error))
    if not problems:
        for check_one in (_check_ingress, _check_buffer, _check_context, _check_agent):
            try:
                check_one()
            except ConfigurationError as error:
                problems.append(str(error))
    if problems:
        raise ConfigurationError("\n".join(dict.fromkeys(problems)))


def _check_ingress() -> None:
    check(load(IngressSettings), load(EvolutionSettings))


def _check_buffer() -> None:
    load(BufferSettings).path  # noqa: B018 - refuses an unknown store


def _check_context() -> None:
    load(ContextSettings).check()


def _check_agent() -> None:
    settings = load(AgentSettings)
    choose(settings)
    PersonaSource(settings.persona, clock=SystemClock()).load()


def loads_weights() -> bool:
    """Whether the agent has to load weights before it is ready."""
    return any(name.startswith(GGUF) for name in choose(load(AgentSettings)).languages)
