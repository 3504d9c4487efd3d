"""`python -m context_service`"""

from context_service.app import ContextApp
from context_service.settings import ContextSettings
from service_kit import logs
from service_kit.server import ServerConfig, run, starting
from service_kit.settings import load


def main() -> None:
    """Read the settings and serve until a signal."""
    with starting("context_service"):
        settings = load(ContextSettings)
        logs.configure(service="context_service", level=settings.log_level, json=settings.log_json)
        settings.check()
    run(lambda: ContextApp(settings), config=ServerConfig(service="context_service", address=settings.context_address))


if __name__ == "__main__":
    main()
