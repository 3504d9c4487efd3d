"""What the tools of this folder have to know of the processes' settings. Run, it says what is wrong with them."""

import os
import sys

from pydantic import ValidationError

from deploy import started
from deploy.doctor import answers
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
    # Late, for it is half of the system: whoever only looks or stops need not wait for it.
    from deploy.processes import check_all

    try:
        settings = load(SystemSettings)
        check_all()
    except ConfigurationError as error:
        raise SystemExit(f"The settings are wrong:\n{error}") from None
    return settings


def starting_s() -> float:
    """How long to wait at most until everything is ready after its start."""
    from deploy.processes import loads_weights

    return _LOADING_S if loads_weights() else _STARTING_S


def leniently() -> SystemSettings:
    """The same, although a name may be misspelt: what runs must be seen and stopped all the same. Addresses that were
    given on the line of `make up` are those of what runs, unless they are given again."""
    try:
        settings = load(SystemSettings)
        if answers(settings.data_dir / "supervisor.sock"):
            return load(SystemSettings, environ={**started.addresses(settings.data_dir), **os.environ})
        return settings
    except ConfigurationError as error:
        print(f"The settings are wrong:\n{error}\n", file=sys.stderr)
    try:
        return SystemSettings.model_validate({})
    except ValidationError:
        raise SystemExit(1) from None


if __name__ == "__main__":
    strictly()
