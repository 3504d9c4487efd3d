"""The context service as a process, on a Supabase project."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from context_service.app import SERVICE_NAME
from tests.stand_ins.postgrest import PostgrestServer

ROOT = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(kw_only=True)
class Process:
    """It may be killed; whatever is left of it goes at the end."""

    process: asyncio.subprocess.Process
    opened: AsyncExitStack
    events: list[dict[str, Any]] = field(default_factory=list)

    async def event(self, name: str) -> dict[str, Any]:
        """The next log line of that name."""
        assert self.process.stdout
        async for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == name:
                return self.events[-1]
        raise AssertionError(f"{name} never came: {self.events}")

    async def channel(self) -> grpc.aio.Channel:
        """When it is ready."""
        ready = await self.event("service_ready")
        return await self.opened.enter_async_context(grpc.aio.insecure_channel(ready["listening"]))

    async def kill(self) -> None:
        """As the kernel does when memory is short."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def ended(self) -> tuple[int, str]:
        """Exit code and standard error, when it ends by itself."""
        _, told = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, told.decode()


async def health(channel: grpc.aio.Channel) -> int:
    """What the health service says of it."""
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
    return int(answer.status)


@asynccontextmanager
async def running(server: PostgrestServer, folder: Path, **environ: str) -> AsyncIterator[Process]:
    """Started, not yet ready; `environ` overrides."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        "SDR_CONTEXT_STORE": "supabase",
        "SUPABASE_URL": server.url,
        "SUPABASE_SECRET_KEY": server.keys.secret,
        "SDR_CONTEXT_ADDRESS": "127.0.0.1:0",
        "SDR_CONTEXT_DB_TIMEOUT_MS": "30000",
        "SDR_DATA_DIR": str(folder),
        "SDR_LOG_FORMAT": "json",
    } | environ
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "context_service", env=environ, cwd=folder, stdout=pipe, stderr=pipe
    )
    async with AsyncExitStack() as opened:
        try:
            yield Process(process=process, opened=opened)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
