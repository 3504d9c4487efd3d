"""`python -m buffer_service`"""

from buffer_service.app import BufferApp
from buffer_service.settings import BufferSettings
from service_kit import logs
from service_kit.server import ServerConfig, run, starting
from service_kit.settings import load

if __name__ == "__main__":
    with starting("buffer_service"):
        settings = load(BufferSettings)
        logs.configure(service="buffer_service", level=settings.log_level, json=settings.log_json)
        settings.path  # noqa: B018 - refuses an unknown store before anything is opened
    run(lambda: BufferApp(settings), config=ServerConfig(service="buffer_service", address=settings.buffer_address))
