"""The gRPC side of the agent: frames in, frames out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc

from agent_service import wire
from agent_service.agent import Agent
from agent_service.conversation import EffectCalled, End, Ended, FirstToken, ModelEvent, TextDelta, UsageReported
from agent_service.errors import ModelFailed, NotBuilt
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2
from service_kit import logs
from service_kit.clock import Clock
from service_kit.durations import duration_to_ms
from service_kit.errors import DeadlineExceeded, ProtocolError

DEFAULT_REMAINING_MS = 30_000
DEFAULT_SUMMARY_S = 60.0
# Streams have no deadline of their own, and one that never says anything would hold its place for ever.
BEGIN_S = 30.0
_log = logs.get(__name__)
Call = grpc.aio.ServicerContext[Any, Any]


class AgentServicer(rpc.AgentServiceServicer):
    """Decodes, calls the agent, encodes."""

    def __init__(self, *, agent: Agent, clock: Clock, persona_problem: Callable[[], str]) -> None:
        self._agent = agent
        self._clock = clock
        self._persona_problem = persona_problem

    async def Respond(
        self, request_iterator: AsyncIterator[pb.RespondRequest], context: Call
    ) -> AsyncGenerator[pb.RespondResponse, None]:
        """One reply; see the contract."""
        begin = await _begin(request_iterator)
        loop = asyncio.get_running_loop()
        remaining_ms = duration_to_ms(begin.remaining) if begin.HasField("remaining") else DEFAULT_REMAINING_MS
        ends_at = loop.time() + remaining_ms / 1000
        known = await _context(request_iterator, begin, ends_at=ends_at)
        turn = wire.decode_turn(begin, known, now_ms=self._clock.now_ms())
        writing = _Writing(self._agent.report().model, self._clock)
        events = self._agent.reply(turn, ends_at=ends_at)
        try:
            async for event in events:
                frame = writing.frame(event)
                if frame is not None:
                    yield frame
        except TimeoutError:
            if writing.first_token_ms is None:
                raise ModelFailed("The time for the reply was over.", model=writing.model) from None
            writing.ended = Ended(why=End.LENGTH, model=writing.model)
        finally:
            await events.aclose()
        yield pb.RespondResponse(done=writing.done())
        _log.info("reply_made", turn_id=begin.turn_id, conversation_id=begin.conversation_id, **writing.facts())

    async def Summarize(self, request: pb.SummarizeRequest, context: Call) -> pb.SummarizeResponse:
        """Older history in a few sentences; see the contract."""
        wire.check_summarize(request)
        left_s = context.time_remaining()
        seconds = DEFAULT_SUMMARY_S if left_s is None else min(left_s, DEFAULT_SUMMARY_S)
        summary = await self._agent.summarize(
            summary=request.summary,
            history=wire.decode_history(request.history),
            lead=wire.decode_lead(request.lead),
            ends_at=asyncio.get_running_loop().time() + seconds,
        )
        if summary is None:
            raise NotBuilt(method="Summarize")
        _log.info("summary_made", conversation_id=request.conversation_id, model=summary.model)
        return wire.encode_summary(summary)

    async def GetAgent(self, request: pb.GetAgentRequest, context: Call) -> pb.GetAgentResponse:
        """State, model, persona and times."""
        response = wire.encode_report(self._agent.report())
        response.persona_problem = self._persona_problem()
        return response


class _Writing:
    """One reply on its way out, and what is counted of it."""

    def __init__(self, model: str, clock: Clock) -> None:
        self.model = model
        self.ended = Ended(why=End.STOP, model=model)
        self.first_token_ms: int | None = None
        self._clock = clock
        self._started = clock.monotonic()
        self._frames = 0
        self._began_ms: int | None = None

    def frame(self, event: ModelEvent) -> pb.RespondResponse | None:
        if isinstance(event, FirstToken) and not self._frames:
            # Of the model whose words go out; one that failed before them began too.
            self._began_ms = self._elapsed_ms()
        if isinstance(event, TextDelta):
            self._frames += 1
            if self.first_token_ms is None:
                self.first_token_ms = self._elapsed_ms() if self._began_ms is None else self._began_ms
            return pb.RespondResponse(text=pb.TextDelta(text=event.text))
        if isinstance(event, EffectCalled):
            return pb.RespondResponse(effect=wire.encode_effect(event.effect))
        if isinstance(event, UsageReported):
            usage = pb.Usage(
                prompt_tokens=event.prompt,
                cached_tokens=event.cached,
                completion_tokens=event.completion,
                cost_micros=event.cost_micros,
            )
            return pb.RespondResponse(usage=usage)
        if isinstance(event, Ended):
            self.ended = replace(event, model=event.model or self.model)
        return None

    def done(self) -> pb.Done:
        return wire.encode_done(self.ended, first_token_ms=self.first_token_ms, total_ms=self._elapsed_ms())

    def facts(self) -> dict[str, object]:
        return {
            "model": self.ended.model,
            "why": self.ended.why.value,
            "fallback_reason": self.ended.fallback_reason,
            "frames": self._frames,
            "first_token_ms": self.first_token_ms,
            "total_ms": self._elapsed_ms(),
        }

    def _elapsed_ms(self) -> int:
        return round((self._clock.monotonic() - self._started) * 1000)


async def _begin(requests: AsyncIterator[pb.RespondRequest]) -> pb.Begin:
    try:
        async with asyncio.timeout(BEGIN_S):
            request = await anext(requests, None)
    except TimeoutError:
        raise DeadlineExceeded("Begin did not come in time.") from None
    if request is None or request.WhichOneof("frame") != "begin":
        raise ProtocolError("The first frame must be Begin.", expected="begin")
    wire.check_begin(request.begin)
    return request.begin


async def _context(
    requests: AsyncIterator[pb.RespondRequest], begin: pb.Begin, *, ends_at: float
) -> lead_pb2.ConversationContext:
    try:
        async with asyncio.timeout_at(ends_at):
            request = await anext(requests, None)
    except TimeoutError:
        raise DeadlineExceeded("The context did not come in time.") from None
    if request is None or request.WhichOneof("frame") != "context":
        raise ProtocolError("The second frame must be Context.", expected="context")
    wire.check_context(begin, request.context)
    return request.context
