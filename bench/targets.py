"""The two things that are measured: the running system, and the floor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2, buffer_service_pb2_grpc
from bench.load import Webhooks
from bench.processes import NotStarted, Processes, free_ports

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

PERSONA = "demo-solar"
_TOKEN = "bench-webhook-token"
_SETTLE_S = 30.0


class Target(Protocol):
    """Four processes that answer webhooks."""

    processes: Processes
    port: int
    webhooks: Webhooks

    async def start(self) -> None:
        """Return once messages can come."""
        ...

    async def settle(self) -> float:
        """Wait until nothing is under way any more; the seconds that it took."""
        ...


class System:
    """The product as it is run, durability on."""

    def __init__(
        self,
        directory: Path,
        *,
        evolution_url: str,
        settings: Mapping[str, str] | None = None,
        agent_command: Sequence[str] = ("-m", "agent_service"),
    ) -> None:
        self._agent_command = agent_command
        self.processes = Processes(directory)
        buffer, context, agent, self.port, admin = free_ports(5)
        self._ports = [buffer, context, agent, self.port]
        self._buffer = f"127.0.0.1:{buffer}"
        self._environ = {
            "SDR_DATA_DIR": str(directory / "data"),
            "SDR_BUFFER_ADDRESS": self._buffer,
            "SDR_CONTEXT_ADDRESS": f"127.0.0.1:{context}",
            "SDR_AGENT_ADDRESS": f"127.0.0.1:{agent}",
            "SDR_INGRESS_ADDRESS": f"127.0.0.1:{self.port}",
            "SDR_ADMIN_ADDRESS": f"127.0.0.1:{admin}",
            "SDR_PERSONA": PERSONA,
            "SDR_AGENT_PLAYBOOK_DELAY_MS": "0",
            # The path is measured, not what it waits for on purpose.
            "SDR_BUFFER_COMMIT_HOLD_MS": "0",
            "EVOLUTION_API_URL": evolution_url,
            "EVOLUTION_API_KEY": "bench-api-key",
            "EVOLUTION_WEBHOOK_TOKEN": _TOKEN,
            **(settings or {}),
        }
        self.webhooks = Webhooks(port=self.port, path="/webhooks/evolution", token=_TOKEN)

    async def start(self) -> None:
        """Services first, so that ingress finds them warm."""
        for name in ("buffer_service", "context_service"):
            self.processes.start(name, ["-m", name], self._environ)
        self.processes.start("agent_service", self._agent_command, self._environ)
        for port in self._ports[:3]:
            await self.processes.wait_listening(port)
        self.processes.start("ingress", ["-m", "ingress"], self._environ)
        await self.processes.wait_listening(self.port)

    async def settle(self) -> float:
        """Until no turn runs and everything is in the history."""
        started = time.perf_counter()
        async with grpc.aio.insecure_channel(self._buffer) as channel:
            stub: BufferServiceAsyncStub = buffer_service_pb2_grpc.BufferServiceStub(channel)
            while time.perf_counter() < started + _SETTLE_S:
                stats = await stub.GetStats(buffer_service_pb2.GetStatsRequest(), timeout=5.0, wait_for_ready=True)
                if not (stats.waiting_turns or stats.running_turns or stats.pending_messages or stats.unrecorded_turns):
                    return time.perf_counter() - started
                await asyncio.sleep(0.02)
        raise NotStarted("turns are still under way")


class Floor:
    """The same processes and protocols without any logic, see `bench.floor`."""

    def __init__(self, directory: Path, *, evolution_url: str) -> None:
        self.processes = Processes(directory)
        self._services = free_ports(4)
        self.port = self._services.pop()
        self._evolution_url = evolution_url
        self.webhooks = Webhooks(port=self.port, path="/webhooks/evolution", token=_TOKEN)

    async def start(self) -> None:
        """Services first."""
        for name, port in zip(("buffer", "context", "agent"), self._services, strict=True):
            self.processes.start(name, ["-m", "bench.floor", name, str(port)])
        for port in self._services:
            await self.processes.wait_listening(port)
        arguments = ["-m", "bench.floor", "ingress", str(self.port), *map(str, self._services), self._evolution_url]
        self.processes.start("ingress", arguments)
        await self.processes.wait_listening(self.port)

    async def settle(self) -> float:
        """Nothing is left once the replies are there."""
        return 0.0
