"""Rolling summaries: after a turn, outside of the reply path, and never in its way."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.common.v1 import lead_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from ingress.services import Services
from service_kit import errors, logs

AT_ONCE = 4
SUMMARIZE_TIMEOUT_S = 60.0
PUT_TIMEOUT_S = 5.0
# A conversation that can't be condensed must not cost a call with every turn.
# After the second failure in a row 1 turn is passed over, then 3, 7, and so on.
MOST_PASSED_OVER = 31
MISSES_KEPT = 1_000
_log = logs.get(__name__)


@dataclass(kw_only=True)
class _Misses:
    """Failures in a row of one conversation, and turns that are passed over since the last one."""

    failures: int = 0
    to_pass_over: int = 0
    passed_over: int = 0


class Summaries:
    """Has older history condensed when the agent asks for it. One summary per conversation, a few in all at a time.

    What fails or finds no room is put off: the agent asks again with the next turn, long before anything is lost.
    """

    def __init__(self, services: Services, *, counters: Counter[str], at_once: int = AT_ONCE) -> None:
        self._services = services
        self._counters = counters
        self._at_once = at_once
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._misses: OrderedDict[str, _Misses] = OrderedDict()
        self._unpaid: OrderedDict[str, agent_pb.Usage] = OrderedDict()

    def start(self, known: lead_pb2.ConversationContext) -> None:
        """Condense this context's history in the background. It must not be changed any more."""
        conversation_id = known.conversation_id
        if not conversation_id or conversation_id in self._tasks or len(self._tasks) >= self._at_once:
            self._counters["summaries_put_off"] += 1
            return
        missed = self._misses.get(conversation_id)
        if missed is not None and missed.passed_over < missed.to_pass_over:
            missed.passed_over += 1
            self._counters["summaries_put_off"] += 1
            return
        task = asyncio.create_task(self._run(known), name=f"summary-{conversation_id}")
        self._tasks[conversation_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(conversation_id, None))

    def take_unpaid(self, conversation_id: str) -> agent_pb.Usage | None:
        """What failed summaries of this conversation cost since it was asked last: its next turn accounts for it."""
        return self._unpaid.pop(conversation_id, None)

    async def close(self) -> None:
        """Give up those that are under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, known: lead_pb2.ConversationContext) -> None:
        try:
            made = await self._make(known)
        except grpc.aio.AioRpcError as error:
            self._failed(known.conversation_id)
            parsed = errors.parse(error)
            self._owe(known.conversation_id, _paid(parsed.metadata))
            _log.warning(
                "summary_failed",
                conversation_id=known.conversation_id,
                code=parsed.code.name,
                reason=parsed.reason,
            )
        except Exception:
            self._failed(known.conversation_id)
            _log.error("summary_broke", conversation_id=known.conversation_id, exc_info=True)
        else:
            self._misses.pop(known.conversation_id, None)
            self._counters["summaries_made" if made else "summaries_empty"] += 1

    def _failed(self, conversation_id: str) -> None:
        self._counters["summaries_failed"] += 1
        missed = self._misses.setdefault(conversation_id, _Misses())
        self._misses.move_to_end(conversation_id)
        missed.to_pass_over = min(2**missed.failures - 1, MOST_PASSED_OVER)
        missed.failures, missed.passed_over = missed.failures + 1, 0
        while len(self._misses) > MISSES_KEPT:
            self._misses.popitem(last=False)

    def _owe(self, conversation_id: str, usage: agent_pb.Usage) -> None:
        if not usage.ByteSize():
            return
        unpaid = self._unpaid.setdefault(conversation_id, agent_pb.Usage())
        unpaid.prompt_tokens += usage.prompt_tokens
        unpaid.completion_tokens += usage.completion_tokens
        unpaid.cost_micros += usage.cost_micros
        self._unpaid.move_to_end(conversation_id)
        while len(self._unpaid) > MISSES_KEPT:
            self._unpaid.popitem(last=False)

    async def _make(self, known: lead_pb2.ConversationContext) -> bool:
        """Whether there was something to condense."""
        request = agent_pb.SummarizeRequest(
            conversation_id=known.conversation_id,
            summary=known.summary,
            history=known.history,
            lead=known.lead if known.HasField("lead") else None,
        )
        answer = await self._services.agent.Summarize(request, timeout=SUMMARIZE_TIMEOUT_S)
        if not answer.summary:
            return False
        put = context_pb.PutSummaryRequest(
            conversation_id=known.conversation_id,
            summary=answer.summary,
            version=known.version,
            through_sequence=answer.through_sequence,
            tokens=answer.usage.prompt_tokens + answer.usage.completion_tokens,
            cost_micros=answer.usage.cost_micros,
        )
        try:
            await self._services.context.PutSummary(put, timeout=PUT_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._owe(known.conversation_id, answer.usage)
            raise
        _log.info("summary_stored", conversation_id=known.conversation_id, through=answer.through_sequence)
        return True


def _paid(metadata: Mapping[str, str]) -> agent_pb.Usage:
    """What a failed summary cost, as the agent's error tells it."""
    try:
        return agent_pb.Usage(
            prompt_tokens=int(metadata.get("tokens", 0)), cost_micros=int(metadata.get("cost_micros", 0))
        )
    except ValueError:
        return agent_pb.Usage()
