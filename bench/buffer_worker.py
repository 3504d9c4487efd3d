"""A worker that speaks to a buffer alone and sends nothing: what is timed is the buffer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1 import buffer_service_pb2_grpc
from bench.fill import REPLY, event

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Milliseconds of the Enqueue call, and from its start to the answer to Finish."""

    enqueue: float
    whole: float


class BufferWorker:
    """One stream of a worker; any number of turns at once, but one for each conversation."""

    def __init__(self, stub: BufferServiceAsyncStub, capacity: int) -> None:
        self._stub = stub
        self._capacity = capacity
        self._call: Any = stub.RunTurns()
        self._writing = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._assigned: dict[str, asyncio.Future[pb.Assign]] = {}
        self._answers: dict[int, asyncio.Future[pb.Committed]] = {}
        self._finished_at: dict[int, float] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str, *, capacity: int) -> AsyncIterator[BufferWorker]:
        """A worker with its stream open."""
        async with grpc.aio.insecure_channel(address) as channel:
            stub: BufferServiceAsyncStub = buffer_service_pb2_grpc.BufferServiceStub(channel)
            worker = cls(stub, capacity)
            await worker._write(pb.RunTurnsRequest(hello=pb.Hello(worker_id="bench", capacity=capacity)))
            tasks = [asyncio.create_task(worker._read(), name="read"), asyncio.create_task(worker._live(), name="beat")]
            try:
                yield worker
            finally:
                for task in tasks:
                    task.cancel()
                worker._call.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def conversations_since(self, instant: float) -> int:
        """Conversations with a turn after this instant of the monotonic clock."""
        return sum(at >= instant for at in self._finished_at.values())

    async def turn(self, number: int) -> Took:
        """One whole turn of this conversation. Raises TimeoutError when an answer does not come."""
        asked = event(number, f"bench-{next(self._numbers)}")
        assigned = self._assigned[asked.contact.contact] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(TIMEOUT_S):
            started = time.perf_counter()
            await self._stub.Enqueue(pb.EnqueueRequest(events=[asked]), timeout=TIMEOUT_S)
            enqueued = time.perf_counter()
            await self._answer(await assigned)
            ended = time.perf_counter()
        self._finished_at[number] = time.monotonic()
        return Took(enqueue=(enqueued - started) * 1000, whole=(ended - started) * 1000)

    async def _answer(self, turn: pb.Assign) -> None:
        ids: dict[str, Any] = {"turn_id": turn.turn_id, "epoch": turn.epoch}
        commit = pb.Commit(ask=next(self._numbers), **ids, revision=turn.revision, parts=[REPLY], last=True)
        go = (await self._ask(pb.RunTurnsRequest(commit=commit), commit.ask)).go
        result = pb.Result(
            ask=next(self._numbers),
            **ids,
            part=go.index,
            attempt=go.attempt,
            outcome=pb.SEND_OUTCOME_SENT,
            provider_message_id=f"p-{turn.turn_id}",
        )
        await self._ask(pb.RunTurnsRequest(result=result), result.ask)
        finish = pb.Finish(ask=next(self._numbers), **ids, recorded_version=turn.min_version + 1)
        done = await self._ask(pb.RunTurnsRequest(finish=finish), finish.ask)
        if not done.complete:
            raise TimeoutError(f"a turn did not end: {done.refusal.message}")

    async def _ask(self, frame: pb.RunTurnsRequest, number: int) -> pb.Committed:
        answer: asyncio.Future[pb.Committed] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._write(frame)
        return await answer

    async def _write(self, frame: pb.RunTurnsRequest) -> None:
        async with self._writing:
            await self._call.write(frame)

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._write(pb.RunTurnsRequest(heartbeat=pb.Heartbeat()))

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for read in self._call:
                for frame in (read, *read.also):
                    self._take(frame)

    def _take(self, frame: pb.RunTurnsResponse) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "assign":
            self._assigned.pop(frame.assign.contact.contact).set_result(frame.assign)
        elif kind == "committed":
            self._answers.pop(frame.committed.ask).set_result(frame.committed)
