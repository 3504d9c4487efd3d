"""What the tools of this folder have to know of the processes' settings."""

import sys

from pydantic import ValidationError

from ingress.edge_settings import EdgeSettings
from ingress.settings import AdminSettings
from service_kit.addresses import AgentAddress, BufferAddress, ContextAddress
from service_kit.settings import ConfigurationError, load


class SystemSettings(AdminSettings, BufferAddress, ContextAddress, AgentAddress, EdgeSettings):
    """Where everything is."""


def strictly() -> SystemSettings:
    """The settings, or the end of this program with a sentence that says what is wrong with them."""
    try:
        return load(SystemSettings)
    except ConfigurationError as error:
        raise SystemExit(f"The settings are wrong:\n{error}") from None


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
