"""What the tools of this folder have to know of the processes' settings."""

import sys

from pydantic import ValidationError

from ingress.edge_settings import EdgeSettings
from ingress.settings import AdminSettings
from service_kit.addresses import AgentAddress, BufferAddress, ContextAddress
from service_kit.settings import ConfigurationError, load

_STARTING_S = 60.0
# Billions of weights from a disk, then the persona's prompt through them, on whatever cores there are.
_LOADING_S = 900.0


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
    # Here, for it is half of the system: whoever only looks or stops need not wait for it.
    from agent_service.models.choice import choose
    from agent_service.settings import AgentSettings
    from buffer_service.settings import BufferSettings
    from context_service.settings import ContextSettings
    from ingress.app import check
    from ingress.providers.evolution.settings import EvolutionSettings
    from ingress.settings import IngressSettings

    problems = []
    for model in (BufferSettings, ContextSettings, AgentSettings, IngressSettings, EvolutionSettings):
        try:
            load(model)
        except ConfigurationError as error:
            problems.append(str(error))
    if not problems:
        check(load(IngressSettings), load(EvolutionSettings))
        choose(load(AgentSettings))
        return
    raise ConfigurationError("\n".join(dict.fromkeys(problems)))


def loads_weights() -> bool:
    """Whether the agent has to load weights before it is ready."""
    from agent_service.models.choice import GGUF, choose
    from agent_service.settings import AgentSettings

    return any(name.startswith(GGUF) for name in choose(load(AgentSettings)).languages)


def starting_s() -> float:
    """How long to wait at most until everything is ready after its start."""
    return _LOADING_S if loads_weights() else _STARTING_S


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
