"""The agent service with a model that takes exactly so long: `python -m bench.slow_agent MILLISECONDS`.

Everything but the model's time is the product's: the playbook's text comes whole, after the wait.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator

from agent_service.agent import Agent
from agent_service.app import AgentApp
from agent_service.conversation import ModelEvent, Turn
from agent_service.models.playbook import Playbook
from agent_service.persona_source import PersonaSource
from agent_service.settings import AgentSettings
from service_kit import logs
from service_kit.clock import SystemClock
from service_kit.server import ServerConfig, run, starting
from service_kit.settings import load


class SlowPlaybook(Playbook):
    """Thinks first."""

    seconds = 0.0

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        """The playbook's reply, later."""
        await asyncio.sleep(self.seconds)
        async for event in super().stream(turn, ends_at=ends_at):
            yield event


def main() -> None:
    """Serves until stopped."""
    with starting("agent_service"):
        settings = load(AgentSettings)
        logs.configure(service="agent_service", level=settings.log_level, json=settings.log_json)
    SlowPlaybook.seconds = int(sys.argv[1]) / 1000
    clock = SystemClock()
    agent = Agent(
        load_persona=PersonaSource(settings.persona, clock=clock).load,
        make_model=lambda persona: SlowPlaybook(persona=persona, clock=clock),
        clock=clock,
        max_replies=settings.max_replies,
    )
    config = ServerConfig(
        service="agent_service", address=settings.agent_address, max_concurrent_streams=settings.max_replies + 64
    )
    run(lambda: AgentApp(settings, clock=clock, agent=agent), config=config)


if __name__ == "__main__":
    main()
