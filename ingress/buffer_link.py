"""The stream to the buffer: hello, heartbeats, frames both ways, and a new stream when one breaks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from service_kit import logs
from service_kit.together import add_waiting

if TYPE_CHECKING:
    from agentic_sdr.buffer.v1.buffer_service_pb2_grpc import BufferServiceAsyncStub

HEARTBEAT_S = 1.0
MIN_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0
_log = logs.get(__name__)


class BufferLink:
    """Owns the RunTurns stream of this worker. What was not written when a stream broke is forgotten: after the next
    Hello the buffer tells what is true."""

    def __init__(
        self,
        *,
        stub: BufferServiceAsyncStub,
        capacity: int,
        holding: Callable[[], Iterable[pb.Holding]],
        on_frame: Callable[[pb.RunTurnsResponse], None],
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self.connected = False
        self._stub = stub
        self._capacity = capacity
        self._holding = holding
        self._on_frame = on_frame
        self._outgoing: asyncio.Queue[pb.RunTurnsRequest] = asyncio.Queue()

    def send(self, frame: pb.RunTurnsRequest) -> None:
        """Sends a frame on the present stream, or drops it when there is none."""
        if self.connected:
            self._outgoing.put_nowait(frame)

    async def run(self) -> None:
        """Keeps a stream open until cancelled."""
        backoff = MIN_BACKOFF_S
        while True:
            lived = asyncio.get_running_loop().time()
            try:
                await self._one_stream()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "BROKEN"
                _log.warning("buffer_stream_lost", code=code)
            if asyncio.get_running_loop().time() - lived > 5:
                backoff = MIN_BACKOFF_S
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_S)

    async def _one_stream(self) -> None:
        self._outgoing = asyncio.Queue()
        # A stream without an end has no deadline; heartbeats and keepalive watch it.
        call = self._stub.RunTurns(wait_for_ready=True)
        writer: asyncio.Task[None] | None = None
        try:
            hello = pb.Hello(worker_id=self.worker_id, capacity=self._capacity, holding=list(self._holding()))
            await call.write(pb.RunTurnsRequest(hello=hello))
            self.connected = True
            writer = asyncio.create_task(self._write(call), name="buffer-link-writer")
            _log.info("buffer_stream_opened", holding=len(hello.holding))
            while isinstance(frame := await call.read(), pb.RunTurnsResponse):
                for one in (frame, *frame.also):
                    self._take(one)
        finally:
            self.connected = False
            call.cancel()
            if writer:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer

    def _take(self, frame: pb.RunTurnsResponse) -> None:
        try:
            self._on_frame(frame)
        except Exception:
            # It is about one turn, which the buffer gives out again; the others go on.
            _log.error("frame_failed", frame=frame.WhichOneof("frame"), exc_info=True)

    async def _write(self, call: grpc.aio.StreamStreamCall[pb.RunTurnsRequest, pb.RunTurnsResponse]) -> None:
        beat = pb.RunTurnsRequest(heartbeat=pb.Heartbeat())
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + HEARTBEAT_S
        try:
            while True:
                if loop.time() >= next_beat:
                    # Under load too: without it the lease ends.
                    await call.write(beat)
                    next_beat = loop.time() + HEARTBEAT_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(next_beat):
                        frame = await self._outgoing.get()
                    add_waiting(self._outgoing, frame)
                    await call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader sees the end of the stream and opens the next one.
            call.cancel()
