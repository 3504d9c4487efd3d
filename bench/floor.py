"""The floor: the same processes, protocols and commits as the system's, and nothing else.

Webhook -> Enqueue with one FULL commit (a writer thread with group commit) -> 200; then `Respond` is opened with Begin
while LoadContext runs, its answer goes into the open stream, one piece of text comes back and one HTTP request leaves.
`python -m bench.floor buffer|context|agent PORT`, `python -m bench.floor ingress PORT BUFFER CONTEXT AGENT URL`.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import apsw
import grpc
import uvloop
from aiohttp import web

from agentic_sdr.agent.v1 import agent_service_pb2, agent_service_pb2_grpc
from agentic_sdr.buffer.v1 import buffer_service_pb2, buffer_service_pb2_grpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2, context_service_pb2_grpc

if TYPE_CHECKING:
    from agentic_sdr.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub
    from agentic_sdr.context.v1.context_service_pb2_grpc import ContextServiceAsyncStub

REPLY = "Oi! Aqui é a Helen. Como posso te chamar?"
TIMEOUT_S = 10.0
Context = grpc.aio.ServicerContext[Any, Any]


class Writer:
    """One thread, one connection; what waits together shares one commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._live, name="writer", daemon=True).start()

    async def write(self, row: bytes) -> None:
        """Returns once the row is durable."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((row, done))
        await done

    def _live(self) -> None:
        db = apsw.Connection(str(self._path))
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("CREATE TABLE IF NOT EXISTS inbox (number INTEGER PRIMARY KEY, body BLOB)")
        while True:
            group = [self._jobs.get()]
            while not self._jobs.empty():
                group.append(self._jobs.get())
            db.execute("BEGIN IMMEDIATE")
            for row, _ in group:
                db.execute("INSERT INTO inbox (body) VALUES (?)", (row,))
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [done for _, done in group])


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class FloorBuffer(buffer_service_pb2_grpc.BufferServiceServicer):
    """Enqueue is one commit."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def Enqueue(
        self, request: buffer_service_pb2.EnqueueRequest, context: Context
    ) -> buffer_service_pb2.EnqueueResponse:
        await self._writer.write(request.SerializeToString())
        return buffer_service_pb2.EnqueueResponse()


class FloorContext(context_service_pb2_grpc.ContextServiceServicer):
    """Knows nobody."""

    async def LoadContext(
        self, request: context_service_pb2.LoadContextRequest, context: Context
    ) -> context_service_pb2.LoadContextResponse:
        known = lead_pb2.ConversationContext(conversation_id=request.conversation_id)
        return context_service_pb2.LoadContextResponse(context=known)


class FloorAgent(agent_service_pb2_grpc.AgentServiceServicer):
    """Says one thing."""

    async def Respond(
        self, request_iterator: AsyncIterator[agent_service_pb2.RespondRequest], context: Context
    ) -> AsyncIterator[agent_service_pb2.RespondResponse]:
        await anext(request_iterator)
        await anext(request_iterator)
        yield agent_service_pb2.RespondResponse(text=agent_service_pb2.TextDelta(text=REPLY))


class FloorIngress:
    """Accepts, asks, sends."""

    def __init__(self, *, buffer: str, context: str, agent: str, evolution_url: str) -> None:
        self._buffer: BufferServiceAsyncStub = buffer_service_pb2_grpc.BufferServiceStub(
            grpc.aio.insecure_channel(buffer)
        )
        self._context: ContextServiceAsyncStub = context_service_pb2_grpc.ContextServiceStub(
            grpc.aio.insecure_channel(context)
        )
        self._agent: AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(grpc.aio.insecure_channel(agent))
        self._url = f"{evolution_url}/message/sendText/bench"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256, keepalive_timeout=4.0))
        self._turns: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One webhook."""
        data = json.loads(await request.read())["data"]
        contact = data["key"]["remoteJid"].partition("@")[0]
        message = message_pb2.Message(message_id=data["key"]["id"], text=data["message"]["conversation"])
        event = buffer_service_pb2.Event(contact=message_pb2.Contact(contact=contact), message=message)
        await self._buffer.Enqueue(buffer_service_pb2.EnqueueRequest(events=[event]), timeout=TIMEOUT_S)
        turn = asyncio.create_task(self._turn(contact, message), name="turn")
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)
        return web.json_response({"status": "ok"})

    async def _turn(self, contact: str, message: message_pb2.Message) -> None:
        call = self._agent.Respond(timeout=TIMEOUT_S)
        looked_up = asyncio.create_task(self._load(contact), name="context")
        begin = agent_service_pb2.Begin(conversation_id=contact, messages=[message])
        await call.write(agent_service_pb2.RespondRequest(begin=begin))
        await call.write(agent_service_pb2.RespondRequest(context=await looked_up))
        await call.done_writing()
        frame = await call.read()
        assert isinstance(frame, agent_service_pb2.RespondResponse)
        async with self._session.post(self._url, json={"number": contact, "text": frame.text.text}) as answer:
            await answer.read()

    async def _load(self, contact: str) -> lead_pb2.ConversationContext:
        request = context_service_pb2.LoadContextRequest(conversation_id=contact)
        return (await self._context.LoadContext(request, timeout=TIMEOUT_S)).context


async def _serve_grpc(port: int, add: Callable[[grpc.aio.Server], None]) -> None:
    server = grpc.aio.server()
    add(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def _serve_http(port: int, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
    server = web.Server(handle, access_log=None)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=512)
    await asyncio.Event().wait()


async def _run(role: str, port: int, *rest: str) -> None:
    if role == "buffer":
        buffer = FloorBuffer(Writer(Path("floor.db")))  # type: ignore[abstract]
        await _serve_grpc(port, lambda s: buffer_service_pb2_grpc.add_BufferServiceServicer_to_server(buffer, s))
    elif role == "context":
        known = FloorContext()  # type: ignore[abstract]
        await _serve_grpc(port, lambda s: context_service_pb2_grpc.add_ContextServiceServicer_to_server(known, s))
    elif role == "agent":
        agent = FloorAgent()  # type: ignore[abstract]
        await _serve_grpc(port, lambda s: agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agent, s))
    else:
        to_buffer, to_context, to_agent, url = rest
        ingress = FloorIngress(
            buffer=f"127.0.0.1:{to_buffer}",
            context=f"127.0.0.1:{to_context}",
            agent=f"127.0.0.1:{to_agent}",
            evolution_url=url,
        )
        await _serve_http(port, ingress.handle)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
