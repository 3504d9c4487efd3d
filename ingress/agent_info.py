"""What ingress knows of the agent: its honest sentence, kept for when the agent itself is gone."""

from __future__ import annotations

import grpc

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from ingress.services import Services
from service_kit.clock import Clock

REFRESH_S = 60.0
RETRY_S = 2.0
TIMEOUT_S = 2.0
# Only used when no agent has ever answered this process; a persona's own sentence replaces it.
FALLBACK = "Desculpe, tive um problema técnico e não consegui te responder agora."


class AgentInfo:
    """Asks GetAgent now and then."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self.latest: agent_pb.GetAgentResponse | None = None

    @property
    def honest_sentence(self) -> str:
        """What to say when nothing else can be said."""
        return (self.latest.honest_sentence if self.latest else "") or FALLBACK

    async def refresh(self) -> bool:
        """Asks once; False when the agent doesn't answer."""
        try:
            self.latest = await self._services.agent.GetAgent(agent_pb.GetAgentRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def run(self) -> None:
        """Keeps it fresh until cancelled."""
        while True:
            await self._clock.sleep(REFRESH_S if await self.refresh() else RETRY_S)
