"""What the tools of this folder have to know of the processes' settings. Run, it says what is wrong with them."""

import sys

from pydantic import ValidationError

from agent_service.models.choice import GGUF, choose
from agent_service.persona_source import PersonaSource
from agent_service.settings import AgentSettings
from buffer_service.settings import BufferSettings
from context_service.settings import ContextSettings
from ingress.app import check
from ingress.edge_settings import EdgeSettings
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.settings import AdminSettings, IngressSettings
from service_kit.addresses import AgentAddress, BufferAddress, ContextAddress
from service_kit.clock import SystemClock
from service_kit.settings import ConfigurationError, load


class SystemSettings(AdminSettings, BufferAddress, ContextAddress, AgentAddress, EdgeSettings):
    """Where everything is."""


def strictly() -> SystemSettings:
    """The settings, or the end of this program with a sentence that says what is wrong with them."""
    try:
        settings = load(SystemSettings)
        _check_every_process()
    except ConfigurationError as error:
        raise SystemExit(f"The settings are wrong:\n{error}") from None
    return settings


def _check_every_process() -> None:
    """What a process would refuse at its start, said before anything that runs is stopped."""
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
    if not problems:
        return
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


def leniently() -> SystemSettings:
    """The same, although a name may be misspelt: what runs must be seen and stopped all the same."""
    try:
        return load(SystemSettings)
    except ConfigurationError as error:
        print(f"The settings are wrong:\n{error}\n", file=sys.stderr)
    try:
        return SystemSettings.model_validate({})
    except ValidationError:
        raise SystemExit(1) from None


if __name__ == "__main__":
    strictly()
