"""One generation: context and agent start together, and the text comes back as parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from ingress.context_link import ContextLink, ContextOut
from ingress.overlay import with_unrecorded
from ingress.reply_parts import PartCutter
from ingress.services import Services
from service_kit import errors, logs
from service_kit.durations import ms_to_duration

_log = logs.get(__name__)


class EmptyReply(Exception):
    """The agent ended without a word."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What became known: new parts, effects, or the end, which tells how the reply was made and what it cost."""

    parts: Sequence[str] = ()
    effects: Sequence[turn_pb2.Effect] = ()
    last: bool = False
    done: agent_pb.Done | None = None
    usage: agent_pb.Usage | None = None


@dataclass(kw_only=True)
class Request:
    """What is to be answered."""

    assign: pb.Assign
    messages: Sequence[message_pb2.Message]
    said: Sequence[str] = ()
    said_effects: Sequence[turn_pb2.Effect] = field(default_factory=list)


class ContextLoader:
    """Loads a turn's context once; every generation of the turn uses it."""

    def __init__(self, link: ContextLink, assign: pb.Assign) -> None:
        self._link = link
        self._assign = assign
        self._task = asyncio.create_task(self._load(), name=f"context-{assign.turn_id}")

    async def get(self) -> lead_pb2.ConversationContext:
        """The context; a failed lookup gives a degraded one, never "new customer"."""
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Nobody needs it any more."""
        self._task.cancel()

    async def _load(self) -> lead_pb2.ConversationContext:
        assign = self._assign
        request = context_pb.LoadContextRequest(
            conversation_id=assign.conversation_id,
            scope=assign.scope,
            contact=assign.contact,
            min_version=assign.min_version,
        )
        try:
            context = (await self._link.load(request)).context
        except ContextOut:
            context = self._degraded(code="OUT")
        except grpc.aio.AioRpcError as error:
            context = self._degraded(code=error.code().name, reason=errors.parse(error).reason)
        return with_unrecorded(context, assign.unrecorded)

    def _degraded(self, *, code: str, reason: str = "") -> lead_pb2.ConversationContext:
        _log.warning("context_degraded", turn_id=self._assign.turn_id, code=code, reason=reason)
        return lead_pb2.ConversationContext(conversation_id=self._assign.conversation_id, degraded=True)


async def generate(
    services: Services,
    request: Request,
    context: ContextLoader,
    *,
    cutter: PartCutter,
    timeout_s: float,
    on_context: Callable[[lead_pb2.ConversationContext], None],
    on_text: Callable[[str], None],
    on_progress: Callable[[Progress], None],
) -> None:
    """Runs until the agent is done. Raises AioRpcError or EmptyReply; cancelling it stops the model at once."""
    call = services.agent.Respond(timeout=timeout_s, wait_for_ready=True)
    spoke = bool(request.said)
    usage: agent_pb.Usage | None = None
    try:
        await call.write(agent_pb.RespondRequest(begin=_begin(request, timeout_s)))
        known = await context.get()
        on_context(known)
        await call.write(agent_pb.RespondRequest(context=known))
        while isinstance(frame := await call.read(), agent_pb.RespondResponse):
            kind = frame.WhichOneof("frame")
            if kind == "text":
                on_text(frame.text.text)
                parts = cutter.feed(frame.text.text)
                if parts:
                    spoke = True
                    on_progress(Progress(parts=parts))
            elif kind == "effect":
                on_progress(Progress(effects=[frame.effect]))
            elif kind == "usage":
                usage = frame.usage
                # Told at once: a call that fails behind it is paid for all the same.
                on_progress(Progress(usage=usage))
            elif kind == "done":
                rest = cutter.finish()
                if not spoke and not rest and frame.done.reason != agent_pb.Done.REASON_SILENT:
                    raise EmptyReply
                on_progress(Progress(parts=rest, last=True, done=frame.done, usage=usage))
                return
        raise EmptyReply
    except asyncio.InvalidStateError:
        # The call ended while we wrote: its status says why.
        await call.read()
        raise EmptyReply from None
    finally:
        # Leaving the loop alone would let the model go on.
        call.cancel()


def _begin(request: Request, timeout_s: float) -> agent_pb.Begin:
    assign = request.assign
    return agent_pb.Begin(
        turn_id=assign.turn_id,
        conversation_id=assign.conversation_id,
        scope=assign.scope,
        contact=assign.contact,
        messages=request.messages,
        said=request.said,
        said_effects=request.said_effects,
        remaining=ms_to_duration(int(timeout_s * 1000)),
    )
