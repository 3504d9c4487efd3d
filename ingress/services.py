"""Persistent channels to the three services; one each for the life of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from agentic_sdr.agent.v1 import agent_service_pb2_grpc
from agentic_sdr.buffer.v1 import buffer_service_pb2, buffer_service_pb2_grpc
from agentic_sdr.context.v1 import context_service_pb2_grpc
from service_kit import errors
from service_kit.channels import ServiceChannel, retry_config
from service_kit.errors import ParsedError

if TYPE_CHECKING:
    from agentic_sdr.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub
    from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceAsyncStub

ENQUEUE_TIMEOUT_S = 1.5
WARM_TIMEOUT_S = 2.0


class NotAccepted(Exception):
    """The buffer did not make the events durable; the provider has to repeat them. Its text is a reason or a code."""

    def __init__(self, error: ParsedError) -> None:
        super().__init__(error.reason or error.code.name)
        self.retry_after_ms = error.retry_after_ms


class Services:
    """Stubs on warm channels. Only methods that a key or their nature make idempotent are retried."""

    def __init__(self, *, buffer: str, context: str, agent: str) -> None:
        buffer_retries = retry_config(service="agentic_sdr.buffer.v1.BufferService", idempotent_methods=["Enqueue"])
        context_retries = retry_config(
            service="agentic_sdr.context.v1.ContextService",
            idempotent_methods=["LoadContext", "RecordTurn"],
        )
        self._channels = {
            "buffer": ServiceChannel(buffer, name="buffer", service_config=buffer_retries),
            "context": ServiceChannel(context, name="context", service_config=context_retries),
            "agent": ServiceChannel(agent, name="agent"),
        }
        self.buffer: BufferServiceAsyncStub = buffer_service_pb2_grpc.BufferServiceStub(
            self._channels["buffer"].channel
        )
        self.context: ContextServiceAsyncStub = context_service_pb2_grpc.ContextServiceStub(
            self._channels["context"].channel
        )
        self.agent: AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(self._channels["agent"].channel)

    async def warm(self) -> None:
        """Connects what is there; the rest connects when it comes."""
        await asyncio.gather(*(c.warm(WARM_TIMEOUT_S) for c in self._channels.values()))

    def channel(self, name: str) -> grpc.aio.Channel:
        """The channel to "buffer", "context" or "agent"."""
        return self._channels[name].channel

    async def enqueue(self, events: Sequence[buffer_service_pb2.Event]) -> buffer_service_pb2.EnqueueResponse:
        """Makes events durable. Raises NotAccepted."""
        request = buffer_service_pb2.EnqueueRequest(events=events)
        try:
            return await self.buffer.Enqueue(request, timeout=ENQUEUE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise NotAccepted(errors.parse(error)) from None

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()
