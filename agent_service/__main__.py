"""`python -m agent_service`"""

from agent_service.app import AgentApp
from agent_service.settings import AgentSettings
from service_kit import logs
from service_kit.server import ServerConfig, run, starting
from service_kit.settings import load

if __name__ == "__main__":
    with starting("agent_service"):
        settings = load(AgentSettings)
        logs.configure(service="agent_service", level=settings.log_level, json=settings.log_json)
    # Health checks and GetAgent share the connection with the replies, hence the room above them.
    config = ServerConfig(
        service="agent_service",
        address=settings.agent_address,
        max_concurrent_streams=settings.max_replies + 64,
    )
    run(lambda: AgentApp(settings), config=config)
