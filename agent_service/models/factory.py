"""Choosing the model by its name."""

from agent_service.models import Model
from agent_service.models.playbook import Playbook
from agent_service.persona import Persona
from service_kit.clock import Clock
from service_kit.settings import ConfigurationError

_LATER = ("openai:", "gguf:")


def check_model(name: str) -> None:
    """Refuse a name for which there is no model."""
    if name == "playbook":
        return
    if name.startswith(_LATER):
        kind = name.partition(":")[0]
        raise ConfigurationError(
            f"SDR_AGENT_MODEL: {kind}: models arrive in a later version; set it to playbook or leave it out"
        )
    raise ConfigurationError("SDR_AGENT_MODEL: there is no such model; set it to playbook or leave it out")


def make_model(name: str, *, persona: Persona, delay_ms: int, clock: Clock) -> Model:
    """The model of that name, not opened yet."""
    check_model(name)
    return Playbook(persona=persona, delay_ms=delay_ms, clock=clock)
