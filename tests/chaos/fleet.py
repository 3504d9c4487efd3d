"""The real processes, brought back at once when they die: four services, a second ingress, a provider, a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from tests.deploy.running import free_port
from tests.stand_ins.evolution_server import EvolutionServer
from tests.stand_ins.tcp_proxy import TcpProxy
from tests.system.harness import ROOT, TOKEN

BLOCK_S = 4.0
LEASE_S = 3.0


@dataclass
class Member:
    """One process that is started again whenever it ends."""

    name: str
    module: str
    environ: dict[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    started: float = 0.0
    stopped: bool = False
    wanted: bool = True
    starts: int = 0
    exits: list[int] = field(default_factory=list)

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    @property
    def alive(self) -> bool:
        """There is a process, and it is not stopped by a signal."""
        return self.process is not None and self.process.returncode is None and not self.stopped

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        assert self.process
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        if number is signal.SIGSTOP:
            self.stopped = True
        if number in (signal.SIGCONT, signal.SIGKILL):
            self.stopped = False

    async def run(self) -> None:
        """Until it is no longer wanted."""
        while self.wanted:
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.chaos.process", self.module, str(BLOCK_S),
                    cwd=ROOT, env=self.environ, stdout=log, stderr=log,
                )  # fmt: skip
            self.started, self.starts = time.monotonic(), self.starts + 1
            self.exits.append(await self.process.wait())
            self.stopped = False
            await asyncio.sleep(0.05)


class Fleet:
    """All members of one system under test. The second ingress reaches the buffer through the proxy."""

    def __init__(self, folder: Path, provider: EvolutionServer, *, ingresses: int, **settings: str) -> None:
        self.folder = folder
        self.provider = provider
        self.members: dict[str, Member] = {}
        self.ingress_urls: dict[str, str] = {}
        self.proxy: TcpProxy
        self._ingresses = ingresses
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._buffer = f"127.0.0.1:{free_port()}"
        self._services = {
            "SDR_CONTEXT_ADDRESS": f"127.0.0.1:{free_port()}",
            "SDR_AGENT_ADDRESS": f"127.0.0.1:{free_port()}",
        }

    def _environ(self, **more: str) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SDR_", "EVOLUTION_"))},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "SDR_LOG_LEVEL": "DEBUG",
            "SDR_DATA_DIR": str(self.folder),
            "SDR_BUFFER_ADDRESS": self._buffer,
            **self._services,
            "SDR_PERSONA": "demo-solar",
            "SDR_AGENT_MODEL": "playbook",
            # These leads are machines, and write like some.
            "SDR_AGENT_LOOP_GUARD": "false",
            "SDR_AGENT_PLAYBOOK_DELAY_MS": "300",
            "SDR_BUFFER_COMMIT_HOLD_MS": "300",
            "EVOLUTION_API_URL": self.provider.url,
            "EVOLUTION_API_KEY": "key-for-tests",
            "EVOLUTION_WEBHOOK_TOKEN": TOKEN,
            **self._settings,
            **more,
        }

    def _add(self, name: str, module: str, **more: str) -> None:
        log = self.folder / f"{name}.log"
        self.members[name] = Member(name=name, module=module, environ=self._environ(**more), log=log)

    async def start(self) -> None:
        """Starts everything and waits until each ingress has its stream."""
        self.proxy = TcpProxy(self._buffer)
        await self.proxy.__aenter__()
        for name in ("buffer_service", "context_service", "agent_service"):
            self._add(name, name)
        for number in range(self._ingresses):
            public, admin = free_port(), free_port()
            name = f"ingress-{number}"
            self.ingress_urls[name] = f"http://127.0.0.1:{public}/webhooks/evolution"
            self._add(
                name,
                "ingress",
                SDR_INGRESS_ADDRESS=f"127.0.0.1:{public}",
                SDR_ADMIN_ADDRESS=f"127.0.0.1:{admin}",
                SDR_BUFFER_ADDRESS=self.proxy.address if number else self._buffer,
            )
        self._tasks = [asyncio.create_task(m.run(), name=m.name) for m in self.members.values()]
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6))
        self._channel = grpc.aio.insecure_channel(self._buffer)
        self.buffer = BufferServiceStub(self._channel)
        async with asyncio.timeout(60):
            while await self.workers() < self._ingresses:
                await asyncio.sleep(0.1)

    async def stats(self) -> pb.GetStatsResponse | None:
        """The buffer's counts, or None while it doesn't answer."""
        try:
            return await self.buffer.GetStats(pb.GetStatsRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return None

    async def workers(self) -> int:
        """Streams that the buffer sees."""
        stats = await self.stats()
        return stats.workers if stats else 0

    async def heal(self) -> None:
        """Nothing is stopped, stalled or misbehaving any more."""
        self.proxy.heal()
        self.provider.faults.clear()
        for member in self.members.values():
            if member.stopped:
                member.send(signal.SIGCONT)

    async def drained(self, seconds: float) -> bool:
        """Whether everything came to rest within so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            stats = await self.stats()
            if stats and not (
                stats.waiting_turns or stats.running_turns or stats.pending_messages or stats.unrecorded_turns
            ):
                return True
            await asyncio.sleep(0.3)
        return False

    async def stop(self) -> None:
        """Ends everything."""
        for member in self.members.values():
            member.wanted = False
            if member.process and member.process.returncode is None:
                member.send(signal.SIGCONT)
                member.send(signal.SIGTERM)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()
        await self.http.close()
        await self.proxy.__aexit__(None, None, None)


@asynccontextmanager
async def fleet(folder: Path, *, ingresses: int = 1, **settings: str) -> AsyncIterator[Fleet]:
    """A running fleet; its files stay in the folder."""
    async with EvolutionServer() as provider:
        running = Fleet(folder, provider, ingresses=ingresses, **settings)
        try:
            await running.start()
            yield running
        finally:
            await running.stop()
