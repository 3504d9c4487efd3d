"""The gRPC face of the buffer: decode, run one engine step, encode."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.buffer.v1 import buffer_service_pb2_grpc
from buffer_service import export, history, validation, wire
from buffer_service.engine import Engine
from buffer_service.inbox import Inbox
from buffer_service.people import People
from buffer_service.store import copies
from buffer_service.turn_taking import TurnTaking
from buffer_service.turn_taking.entities import SendOutcome
from buffer_service.turn_taking.frames import Frame
from service_kit import logs
from service_kit.backups import Backups
from service_kit.errors import ProtocolError, ServiceError
from service_kit.together import add_waiting

Context = grpc.aio.ServicerContext[Any, Any]
_log = logs.get(__name__)


class BufferService(buffer_service_pb2_grpc.BufferServiceServicer):
    """Thin: no SQL, no state machine, no status codes."""

    def __init__(self) -> None:
        self._streams: dict[int, asyncio.Queue[pb.RunTurnsResponse | None]] = {}
        self._sids = itertools.count(1)
        self._engine: Engine
        self._inbox: Inbox
        self._people: People
        self._backups: Backups

    def attach(self, *, engine: Engine, inbox: Inbox, people: People, backups: Backups) -> None:
        """Gives the service what it talks to; called once, before it is registered."""
        self._engine, self._inbox, self._people, self._backups = engine, inbox, people, backups

    # ---- messages

    async def Enqueue(self, request: pb.EnqueueRequest, context: Context) -> pb.EnqueueResponse:
        validation.enqueue(request)
        results = await self._engine.call(lambda now: self._inbox.enqueue(now, request.events))
        return pb.EnqueueResponse(results=results)

    # ---- workers

    async def RunTurns(
        self, request_iterator: AsyncIterator[pb.RunTurnsRequest], context: Context
    ) -> AsyncIterator[pb.RunTurnsResponse]:
        first = await _first_frame(request_iterator)
        sid = next(self._sids)
        queue = self._streams[sid] = asyncio.Queue()
        self._engine.post(lambda now: self._hello(now, sid, first.hello))
        reader = asyncio.create_task(self._read(sid, first, request_iterator), name=f"run-turns-{sid}")
        try:
            going_on = True
            while going_on and (frame := await queue.get()) is not None:
                going_on = add_waiting(queue, frame)
                yield frame
        finally:
            reader.cancel()
            self._streams.pop(sid, None)
            self._engine.post(lambda now: self._turns.stream_lost(sid))

    async def _read(self, sid: int, first: pb.RunTurnsRequest, frames: AsyncIterator[pb.RunTurnsRequest]) -> None:
        try:
            self._take_following(sid, first)
            async for frame in frames:
                self._take(sid, frame)
                self._take_following(sid, frame)
        finally:
            # The worker closed its half: what is under way is decided by its lease.
            self._end(sid)

    def _take_following(self, sid: int, frame: pb.RunTurnsRequest) -> None:
        for following in frame.also:
            self._take(sid, following, nested=True)

    def _take(self, sid: int, frame: pb.RunTurnsRequest, *, nested: bool = False) -> None:
        try:
            validation.frame(frame, nested=nested)
        except ServiceError as error:
            return self._send(sid, wire.refused_frame_to_pb(frame, error))
        handlers: dict[str, Callable[[int, pb.RunTurnsRequest, int], None]] = {
            "heartbeat": lambda sid, f, now: self._turns.heartbeat(now, sid),
            "commit": self._commit,
            "result": self._result,
            "finish": self._finish,
            "release": self._release,
            "recorded": self._recorded,
        }
        handler = handlers[frame.WhichOneof("frame") or ""]
        return self._engine.post(lambda now: handler(sid, frame, now))

    @property
    def _turns(self) -> TurnTaking:
        return self._engine.turns

    def _hello(self, now: int, sid: int, hello: pb.Hello) -> None:
        holding = [(h.turn_id, h.epoch) for h in hello.holding]
        self._turns.hello(now, sid, worker=hello.worker_id, capacity=hello.capacity, holding=holding)

    def _commit(self, sid: int, frame: pb.RunTurnsRequest, now: int) -> None:
        self._turns.commit(now, sid, wire.commit_of(frame.commit))

    def _result(self, sid: int, frame: pb.RunTurnsRequest, now: int) -> None:
        f = frame.result
        self._turns.result(
            now,
            sid,
            ask=f.ask,
            turn_id=f.turn_id,
            epoch=f.epoch,
            part=f.part,
            attempt=f.attempt,
            outcome=SendOutcome(f.outcome),
            provider_message_id=f.provider_message_id,
        )

    def _finish(self, sid: int, frame: pb.RunTurnsRequest, now: int) -> None:
        f = frame.finish
        version = f.recorded_version if f.WhichOneof("record") == "recorded_version" else None
        self._turns.finish(now, sid, ask=f.ask, turn_id=f.turn_id, epoch=f.epoch, version=version)

    def _release(self, sid: int, frame: pb.RunTurnsRequest, now: int) -> None:
        f = frame.release
        failed = f.reason == pb.RELEASE_REASON_FAILED
        self._turns.release(now, turn_id=f.turn_id, epoch=f.epoch, failed=failed)

    def _recorded(self, sid: int, frame: pb.RunTurnsRequest, now: int) -> None:
        f = frame.recorded
        self._turns.recorded(now, conversation_id=f.conversation_id, turn_id=f.turn_id, version=f.version)

    # ---- frames out

    def deliver(self, frames: list[tuple[int, Frame]]) -> None:
        """Sends frames whose transaction is durable. Runs in the event loop."""
        for sid, frame in frames:
            history.note(sid, frame)
            if sid in self._streams:
                self._send(sid, wire.frame_to_pb(frame))

    def _send(self, sid: int, frame: pb.RunTurnsResponse) -> None:
        queue = self._streams.get(sid)
        if queue:
            queue.put_nowait(frame)

    def _end(self, sid: int) -> None:
        queue = self._streams.get(sid)
        if queue:
            queue.put_nowait(None)

    async def drain(self) -> None:
        """Tells every worker that the buffer stops, and ends the streams."""
        self._backups.stop()
        with contextlib.suppress(ServiceError):  # a dead engine can tell nobody; the streams end all the same
            await self._engine.call(lambda now: self._turns.drain())
        for sid in list(self._streams):
            self._end(sid)

    # ---- people

    async def GetLane(self, request: pb.GetLaneRequest, context: Context) -> pb.GetLaneResponse:
        validation.lane(request)
        return pb.GetLaneResponse(lane=await self._engine.call(lambda now: self._people.get_lane(request)))

    async def ListLanes(self, request: pb.ListLanesRequest, context: Context) -> pb.ListLanesResponse:
        size = validation.lanes(request)
        return await self._engine.call(lambda now: self._people.list_lanes(request, size))

    async def PauseConversation(
        self, request: pb.PauseConversationRequest, context: Context
    ) -> pb.PauseConversationResponse:
        name = validation.identifier(request.conversation_id, "conversation_id")
        reason = validation.reason(request.reason)
        lane = await self._engine.call(lambda now: self._people.pause(now, name, reason))
        return pb.PauseConversationResponse(lane=lane)

    async def ResumeConversation(
        self, request: pb.ResumeConversationRequest, context: Context
    ) -> pb.ResumeConversationResponse:
        name = validation.identifier(request.conversation_id, "conversation_id")
        lane = await self._engine.call(lambda now: self._people.resume(now, name))
        return pb.ResumeConversationResponse(lane=lane)

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        validation.tenant(request.tenant)
        size = validation.page_size(request.page_size)
        return await self._engine.call(lambda now: self._people.list_dead_letters(request, size))

    async def ReplayDeadLetter(
        self, request: pb.ReplayDeadLetterRequest, context: Context
    ) -> pb.ReplayDeadLetterResponse:
        number, stale = validation.positive(request.dead_letter_id, "dead_letter_id"), request.answer_stale
        return await self._engine.call(lambda now: self._people.replay(now, number, answer_stale=stale))

    async def ForgetContact(self, request: pb.ForgetContactRequest, context: Context) -> pb.ForgetContactResponse:
        contact = validation.identifier(request.contact, "contact")
        tenant = validation.tenant(request.tenant) or "default"
        return await self._engine.call(lambda now: self._people.forget(now, tenant, contact))

    async def ExportContact(
        self, request: pb.ExportContactRequest, context: Context
    ) -> AsyncIterator[pb.ExportContactResponse]:
        contact = validation.identifier(request.contact, "contact")
        tenant = validation.tenant(request.tenant) or "default"
        async for piece in export.document(self._engine, tenant, contact):
            yield piece

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        tenant, last = validation.tenant(request.tenant), self._inbox.last_event_at
        return await self._engine.call(lambda now: self._people.stats(now, tenant, last))

    async def Backup(self, request: pb.BackupRequest, context: Context) -> pb.BackupResponse:
        copied, unfinished = await self._backups.make(
            request.name,
            owner=lambda work: self._engine.outside(lambda store: work(store.db)),
            seal=lambda db: copies.seal(db, request.name),
        )
        workers = await self._engine.call(lambda now: sum(s.connected for s in self._turns.sessions.values()))
        return wire.backup_to_pb(copied, unfinished, workers)


async def _first_frame(frames: AsyncIterator[pb.RunTurnsRequest]) -> pb.RunTurnsRequest:
    async for frame in frames:
        if frame.WhichOneof("frame") == "hello" and frame.hello.worker_id:
            validation.hello(frame.hello)
            return frame
        break
    raise ProtocolError("The stream's first frame has to be Hello.", expected="hello")
