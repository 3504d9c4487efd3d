"""The composition root: who makes, opens and closes what."""

import asyncio
from collections.abc import Sequence

import grpc

from agent_service.agent import Agent
from agent_service.models.choice import choose
from agent_service.models.factory import make_model
from agent_service.persona_source import PersonaSource
from agent_service.service import AgentServicer
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from service_kit.clock import Clock, SystemClock

# Long enough for the playbook: then the very first health check is already true.
_WARM_BEFORE_LISTENING_S = 0.5


class AgentApp:
    """The agent as a process. A slow model warms up while the port already answers, truthfully, "not yet"."""

    def __init__(self, settings: AgentSettings, *, clock: Clock | None = None, agent: Agent | None = None) -> None:
        choose(settings)
        self._clock = clock or SystemClock()
        self._source = PersonaSource(settings.persona, clock=self._clock)
        self._agent = agent or make_agent(settings, source=self._source, clock=self._clock)
        self._reloads = agent is None
        self._warming: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the warm-up; a failure within the first moments is a failure to start."""
        self._warming = asyncio.create_task(self._agent.warm_up(), name="agent-warm-up")
        await asyncio.wait({self._warming}, timeout=_WARM_BEFORE_LISTENING_S)
        if self._warming.done():
            try:
                self._warming.result()
            except BaseException:
                # Nobody closes what never opened.
                await self._agent.close()
                raise

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add the servicer."""
        servicer = AgentServicer(agent=self._agent, clock=self._clock, persona_problem=lambda: self._source.problem)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server)
        return (agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,)

    async def ready(self) -> bool:
        """Whether the model can answer."""
        return self._agent.ready

    async def run_background(self) -> None:
        """A warm-up that fails later stops the process; then the persona's files are watched."""
        if self._warming is not None:
            await self._warming
        if self._reloads:
            await self._source.watch(self._agent.use)

    async def drain(self) -> None:
        """Replies are short; the server's grace is enough for them."""

    async def close(self) -> None:
        """Stop a warm-up that still runs, then the model."""
        if self._warming is not None and not self._warming.done():
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._agent.close()


def make_agent(settings: AgentSettings, *, source: PersonaSource, clock: Clock) -> Agent:
    """The agent that the settings describe, cold."""
    return Agent(
        load_persona=source.load,
        make_model=lambda persona: make_model(settings, persona=persona, clock=clock),
        clock=clock,
        max_replies=settings.max_replies,
        loop_guard=settings.loop_guard,
    )
