"""The real system: four processes under the real process manager, and a stand-in provider that knows what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xmlrpc.client import ServerProxy

import aiohttp
import grpc
import pytest
from supervisor.xmlrpc import SupervisorTransport

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceStub
from agentic_sdr.common.v1 import message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceStub
from deploy.supervision import Supervisor
from tests.deploy.running import free_port
from tests.stand_ins.evolution_server import EvolutionServer

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub
    from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceAsyncStub

ROOT = Path(__file__).parents[2]
SERVICES = ("buffer_service", "context_service", "agent_service", "ingress")
TOKEN = "token-for-tests-0123456789"
INSTANCE = "loja-demo"
_numbers = itertools.count(10_000)
# For tests that share a system.
on_the_modules_loop = pytest.mark.asyncio(loop_scope="module")


def new_contact() -> str:
    """An invented mobile number in Recife."""
    return f"55819{next(_numbers):08d}"


def webhook(contact: str, text: str, *, message_id: str = "", at: float | None = None) -> dict[str, Any]:
    """A lead's text as Evolution tells it."""
    return {
        "event": "messages.upsert",
        "instance": INSTANCE,
        "data": {
            "key": {
                "remoteJid": f"{contact}@s.whatsapp.net",
                "fromMe": False,
                "id": message_id or uuid.uuid4().hex.upper(),
            },
            "pushName": "Cliente",
            "message": {"conversation": text},
            "messageType": "conversation",
            "messageTimestamp": int(time.time() if at is None else at),
        },
        "sender": "5581999990000@s.whatsapp.net",
    }


class System:
    """One running system. Ports and data are its own."""

    def __init__(self, directory: Path, provider: EvolutionServer, **extra: str) -> None:
        self.directory = directory
        self.provider = provider
        ports = [free_port() for _ in range(5)]
        self.address = {name: f"127.0.0.1:{port}" for name, port in zip((*SERVICES, "admin"), ports, strict=True)}
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SDR_", "EVOLUTION_"))},
            "SDR_DATA_DIR": str(directory),
            "VIRTUAL_ENV": sys.prefix,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "SDR_BUFFER_ADDRESS": self.address["buffer_service"],
            "SDR_CONTEXT_ADDRESS": self.address["context_service"],
            "SDR_AGENT_ADDRESS": self.address["agent_service"],
            "SDR_INGRESS_ADDRESS": self.address["ingress"],
            "SDR_ADMIN_ADDRESS": self.address["admin"],
            "SDR_PERSONA": "demo-solar",
            "SDR_AGENT_MODEL": "playbook",
            # These leads are machines, and write like some.
            "SDR_AGENT_LOOP_GUARD": "false",
            # Who tests the hold sets it; the others would only wait for it.
            "SDR_BUFFER_COMMIT_HOLD_MS": "0",
            "EVOLUTION_API_URL": provider.url,
            "EVOLUTION_API_KEY": "key-for-tests",
            "EVOLUTION_WEBHOOK_TOKEN": TOKEN,
            **extra,
        }
        self.http: aiohttp.ClientSession
        self.buffer: BufferServiceAsyncStub
        self.context: ContextServiceAsyncStub
        self._manager: asyncio.subprocess.Process | None = None
        self._channels: list[grpc.aio.Channel] = []

    # ---- life

    async def start(self) -> None:
        """Starts the process manager and waits until everything is ready."""
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._manager = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(ROOT / "deploy" / "supervisord.conf"),
            cwd=ROOT, env=self.environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        buffer = grpc.aio.insecure_channel(self.address["buffer_service"])
        context = grpc.aio.insecure_channel(self.address["context_service"])
        self._channels = [buffer, context]
        self.buffer, self.context = BufferServiceStub(buffer), ContextServiceStub(context)
        await self.wait_ready()

    async def stop(self) -> None:
        """Stops everything."""
        for channel in self._channels:
            await channel.close()
        await self.http.close()
        if self._manager and self._manager.returncode is None:
            try:
                await self.manage("shutdown")  # A signal would be noticed up to a second later.
            except OSError:  # It has not come up.
                self._manager.terminate()
            await self._manager.wait()

    async def wait_ready(self, seconds: float = 30, *, without: Sequence[str] = ()) -> None:
        """Until ingress is ready, and degraded in exactly these services."""
        await self._wait_readyz(lambda status, degraded: status == 200 and degraded == list(without), seconds)

    async def wait_not_ready(self, seconds: float = 30) -> None:
        """Until ingress says that it takes nothing."""
        await self._wait_readyz(lambda status, _: status == 503, seconds)

    async def _wait_readyz(self, met: Callable[[int, list[str]], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with self.http.get(f"http://{self.address['admin']}/readyz") as response:
                        if met(response.status, (await response.json())["degraded"]):
                            return
                await asyncio.sleep(0.05)

    # ---- the process manager

    def _manage(self, method: str, *args: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.directory}/supervisor.sock")
        with ServerProxy("http://127.0.0.1", transport) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*args)
            finally:
                transport.close()

    async def manage(self, method: str, *args: Any) -> Any:
        """A call to the process manager."""
        return await asyncio.to_thread(self._manage, method, *args)

    async def pid(self, name: str) -> int:
        """The process id of a service; 0 while it is down."""
        return int((await self.manage("getProcessInfo", name))["pid"])

    async def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Kills a service, once it is there; its process id."""
        async with asyncio.timeout(30):
            while not (pid := await self.pid(name)):  # To 0, the signal would go to all of the tests.
                await asyncio.sleep(0.05)
        os.kill(pid, how)
        return pid

    async def stop_service(self, name: str) -> None:
        """Stops a service for good, also one that has just been killed."""
        await asyncio.to_thread(Supervisor(self.directory).stop_program, name)

    async def wait_back(self, name: str, dead: int, seconds: float = 30) -> None:
        """Until the process manager has brought a service back and everything is ready."""
        async with asyncio.timeout(seconds):
            while await self.pid(name) in (0, dead):
                await asyncio.sleep(0.05)
        await self.wait_ready(seconds)

    def log(self, name: str) -> str:
        """What a service has logged."""
        return (self.directory / "logs" / f"{name}.log").read_text(errors="replace")

    # ---- as the provider

    async def post(self, body: Any) -> int:
        """One webhook; its status, 0 when nobody listens."""
        url = f"http://{self.address['ingress']}/webhooks/evolution"
        try:
            async with self.http.post(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    async def deliver(self, body: Any, seconds: float = 30) -> None:
        """Repeats a webhook until it gets a 200, as a provider does."""
        async with asyncio.timeout(seconds):
            while await self.post(body) != 200:
                await asyncio.sleep(0.1)

    def heard(self, contact: str) -> list[str]:
        """What a person got, in order."""
        return [s.text for s in self.provider.texts if s.delivered and s.number.startswith(contact)]

    # ---- as a person who looks

    async def lane(self, contact: str) -> pb.Lane | None:
        """The lane of a contact."""
        request = pb.GetLaneRequest(
            scope=message_pb2.Scope(channel="evolution", instance=INSTANCE), alias=f"phone:{contact}"
        )
        try:
            return (await self.buffer.GetLane(request, timeout=5)).lane
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def settled(self, contact: str, messages: int, seconds: float = 40) -> pb.Lane:
        """The lane once it has ended turns with that many messages and nothing is left to do."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    lane = await self.lane(contact)
                    if lane and quiet(lane) and sum(len(t.messages) for t in lane.ended_turns) >= messages:
                        return lane
                await asyncio.sleep(0.05)

    async def lead(self, contact: str) -> Any:
        """The lead as the context service knows it."""
        return (await self.context.GetLead(context_pb.GetLeadRequest(contact=contact), timeout=5)).lead


def quiet(lane: pb.Lane) -> bool:
    """Nothing is left to do."""
    return not lane.HasField("turn") and not lane.pending and not lane.unrecorded


@asynccontextmanager
async def running(directory: Path, **extra: str) -> AsyncIterator[System]:
    """A system with its provider, from start to stop."""
    async with EvolutionServer() as provider:
        system = System(directory, provider, **extra)
        try:
            await system.start()
            yield system
        finally:
            await system.stop()


SAID = (turn_pb2.PART_STATE_SENT, turn_pb2.PART_STATE_UNKNOWN)
