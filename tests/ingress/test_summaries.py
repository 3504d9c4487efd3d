"""Rolling summaries: asked for after the turn, stored with their reach, and never in a turn's way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc
from agentic_sdr.buffer.v1 import buffer_service_pb2 as buffer_pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1 import context_service_pb2_grpc
from ingress import summaries
from ingress.context_link import ContextLink
from ingress.generation import ContextLoader, Progress, Request, generate
from ingress.reply_parts import PartCutter
from ingress.services import Services
from ingress.summaries import Summaries
from service_kit import errors
from service_kit.server import Server, ServerConfig
from service_kit.testing import _Plain
from tests.ingress.test_turn_runner import Agent, ContextStandIn, Rig, rig, text

SUMMARY = agent_pb.SummarizeResponse(
    summary="A Ana quer desconto.",
    through_sequence=28,
    model="openai:test",
    usage=agent_pb.Usage(prompt_tokens=900, cached_tokens=100, completion_tokens=80, cost_micros=321),
)


class Summarizer(Agent):
    """Answers with SUMMARY, when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[agent_pb.SummarizeRequest] = []
        self.answer = SUMMARY
        self.error: grpc.StatusCode | None = None
        self.failure: errors.ServiceError | None = None
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.given_up = 0

    async def Summarize(self, request: agent_pb.SummarizeRequest, context: Any) -> agent_pb.SummarizeResponse:
        self.requests.append(request)
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error:
            await context.abort(self.error, "no")
        if self.failure:
            raise self.failure
        return self.answer


class Summarised(ContextStandIn):
    """Keeps summaries."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[context_pb.PutSummaryRequest] = []
        self.error: grpc.StatusCode | None = None

    async def PutSummary(self, request: context_pb.PutSummaryRequest, context: Any) -> context_pb.PutSummaryResponse:
        self.puts.append(request)
        if self.error:
            await context.abort(self.error, "no")
        return context_pb.PutSummaryResponse()


class World:
    """The summaries of one process, and the two services that they talk to."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.agent, self.context = Summarizer(), Summarised()
        self.counters: Counter[str] = Counter()
        self.summaries = Summaries(services, counters=self.counters, at_once=2)

    async def until(self, what: str, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.counters[f"summaries_{what}"] < count:
                await asyncio.sleep(0.002)
        # What has counted is over; now it is let go of, too.
        await asyncio.sleep(0)

    async def asked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.agent.requests) < count:
                await asyncio.sleep(0.002)


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    address = f"unix:{tmp_path}/others"
    services = Services(buffer=address, context=address, agent=address)
    w = World(services)

    def add(server: grpc.aio.Server) -> None:
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(w.agent, server)
        context_service_pb2_grpc.add_ContextServiceServicer_to_server(w.context, server)

    async with Server(_Plain(add), ServerConfig(service="others", address=address, grace_s=0.2)):
        try:
            yield w
        finally:
            await w.summaries.close()
            await services.close()


def known(conversation_id: str = "c1") -> lead_pb2.ConversationContext:
    history = [
        lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_LEAD, text=f"linha {i}", sequence=i) for i in range(1, 41)
    ]
    return lead_pb2.ConversationContext(
        conversation_id=conversation_id,
        version=21,
        summary="antes",
        summary_through=3,
        history=history,
        lead=lead_pb2.Lead(name="Ana"),
    )


async def test_history_is_condensed_and_stored_with_its_reach_and_price(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.summaries.start(known())
        await w.until("made")
        [asked] = w.agent.requests
        assert (asked.conversation_id, asked.summary, asked.lead.name) == ("c1", "antes", "Ana")
        assert [line.sequence for line in asked.history] == list(range(1, 41))
        [put] = w.context.puts
        assert (put.conversation_id, put.summary, put.version) == ("c1", "A Ana quer desconto.", 21)
        assert (put.through_sequence, put.tokens, put.cost_micros) == (28, 980, 321)


async def test_nothing_is_stored_when_there_was_too_little(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.agent.answer = agent_pb.SummarizeResponse()
        w.summaries.start(known())
        await w.until("empty")
        assert w.context.puts == []


async def test_a_conversation_is_condensed_once_at_a_time(tmp_path: Path) -> None:
    """A lead who writes fast has every turn ask for a summary while the first is being written."""
    async with world(tmp_path) as w:
        w.agent.let_go.clear()
        for _ in range(5):
            w.summaries.start(known())
        await w.asked(1)
        assert w.counters["summaries_put_off"] == 4
        w.agent.let_go.set()
        await w.until("made")
        w.summaries.start(known())
        await w.until("made", 2)
        assert len(w.agent.requests) == 2


async def test_only_a_few_are_under_way_in_all(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.agent.let_go.clear()
        for number in range(10):
            w.summaries.start(known(f"c{number}"))
        await w.asked(2)
        assert w.counters["summaries_put_off"] == 8
        w.agent.let_go.set()
        await w.until("made", 2)
        assert {asked.conversation_id for asked in w.agent.requests} == {"c0", "c1"}


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE])
async def test_an_agent_that_cannot_is_asked_again_with_the_next_turn(tmp_path: Path, code: grpc.StatusCode) -> None:
    async with world(tmp_path) as w:
        w.agent.error = code
        w.summaries.start(known())
        await w.until("failed")
        assert w.context.puts == []
        w.agent.error = None
        while w.summaries._tasks:
            # It counts its failure before it is over; until then another one is put off.
            await asyncio.sleep(0)
        w.summaries.start(known())
        await w.until("made")


async def test_what_fails_again_and_again_is_tried_ever_more_rarely(tmp_path: Path) -> None:
    """A reasoning model used its 600 tokens up for thoughts, every time: each turn paid for a summary that never came,
    and no budget saw it."""
    async with world(tmp_path) as w:
        w.agent.error = grpc.StatusCode.UNAVAILABLE
        tried = []
        for _ in range(30):
            before = w.counters["summaries_put_off"]
            w.summaries.start(known())
            tried.append(w.counters["summaries_put_off"] == before)
            await w.until("failed", sum(tried))
            while w.summaries._tasks:
                await asyncio.sleep(0)
        assert [turn for turn, one in enumerate(tried) if one] == [0, 1, 3, 7, 15]
        w.summaries.start(known("another"))
        await w.asked(6)
        w.agent.error = None
        for _ in range(2):
            w.summaries.start(known())
        await w.until("made")
        w.summaries.start(known())
        await w.until("made", 2)


async def test_what_a_failed_summary_cost_is_owed_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.agent.failure = errors.Unavailable("no", tokens="930", cost_micros="7")
        w.summaries.start(known())
        await w.until("failed")
        w.agent.failure, w.context.error = None, grpc.StatusCode.FAILED_PRECONDITION
        w.summaries.start(known())
        await w.until("failed", 2)
        owed = w.summaries.take_unpaid("c1")
        assert owed is not None
        assert (owed.prompt_tokens + owed.completion_tokens, owed.cost_micros) == (930 + 980, 7 + 321)
        assert w.summaries.take_unpaid("c1") is None and w.summaries.take_unpaid("another") is None


@pytest.mark.parametrize("metadata", [{}, {"tokens": "many"}])
async def test_a_failure_that_tells_no_cost_owes_nothing(tmp_path: Path, metadata: dict[str, str]) -> None:
    async with world(tmp_path) as w:
        w.agent.failure = errors.Unavailable("no", **metadata)  # type: ignore[arg-type]
        w.summaries.start(known())
        await w.until("failed")
        assert w.summaries.take_unpaid("c1") is None


async def test_a_store_that_refuses_is_no_trouble(tmp_path: Path) -> None:
    """The person may have been erased meanwhile, or another summary may reach further."""
    async with world(tmp_path) as w:
        w.context.error = grpc.StatusCode.FAILED_PRECONDITION
        w.summaries.start(known())
        await w.until("failed")


async def test_a_summary_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "SUMMARIZE_TIMEOUT_S", 0.05)
    async with world(tmp_path) as w:
        w.agent.let_go.clear()
        w.summaries.start(known())
        await w.until("failed")
        w.agent.let_go.set()
        w.summaries.start(known())
        await w.until("made")


async def test_closing_gives_up_what_is_under_way(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.agent.let_go.clear()
        w.summaries.start(known())
        await w.asked(1)
        await w.summaries.close()
        async with asyncio.timeout(10):
            while not w.agent.given_up:
                await asyncio.sleep(0.002)
        assert w.context.puts == [] and w.counters["summaries_made"] == 0


# ---- as a part of the turn runner


@asynccontextmanager
async def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Rig, Summarizer, Summarised]]:
    monkeypatch.setattr("tests.ingress.test_turn_runner.Agent", Summarizer)
    monkeypatch.setattr("tests.ingress.test_turn_runner.ContextStandIn", Summarised)
    async with rig(tmp_path) as r:
        agent, context = r.agent, r.context
        assert isinstance(agent, Summarizer) and isinstance(context, Summarised)

        async def reply(begin: agent_pb.Begin, _: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("certo")
            yield agent_pb.RespondResponse(usage=agent_pb.Usage(prompt_tokens=10))
            wants = begin.messages[0].text == "muita história"
            done = agent_pb.Done(reason=agent_pb.Done.REASON_STOP, wants_summary=wants)
            yield agent_pb.RespondResponse(done=done)

        agent.reply = reply
        yield r, agent, context


async def test_a_turn_whose_agent_wants_a_summary_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with turns(tmp_path, monkeypatch) as (r, agent, context):
        await r.write("oi")
        await r.until(lambda: len(r.finished) == 1)
        assert agent.requests == []
        result = await r.write("muita história")
        await r.until(lambda: len(context.puts) == 1)
        assert agent.requests[0].conversation_id == result.conversation_id
        assert context.puts[0].version == 1, "the version that the turn's context had"


async def test_the_next_turn_accounts_for_a_summary_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens were in no book, and a conversation whose summaries always fail went past its budget unseen."""
    async with turns(tmp_path, monkeypatch) as (r, agent, context):
        agent.failure = errors.Unavailable("no", tokens="930", cost_micros="7")
        await r.write("muita história")
        await r.until(lambda: r.runner.counters["summaries_failed"] == 1)
        for number in range(2):
            await r.write(f"e aí {number}")
            await r.until(lambda: len(r.finished) == number + 2)  # noqa: B023
        await r.until(lambda: len(context.records) == 3)
        made = [one.generation for record in context.records for one in record.effects if one.HasField("generation")]
        assert [(one.prompt_tokens, one.discarded_tokens, one.cost_micros) for one in made] == [
            (10, 0, 0),
            (10, 930, 7),
            (10, 0, 0),
        ]


async def test_a_summary_that_hangs_keeps_no_turn_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with turns(tmp_path, monkeypatch) as (r, agent, context):
        agent.let_go.clear()
        await r.write("muita história")
        await r.until(lambda: len(agent.requests) == 1)
        for number in range(3):
            await r.write(f"e aí {number}")
            await r.until(lambda: len(r.finished) == number + 2)  # noqa: B023
        assert len(r.provider.sent) == 4 and context.puts == []
        await r.runner.close()
        await r.until(lambda: agent.given_up == 1)


async def test_the_end_of_a_generation_tells_how_it_was_made_and_what_it_cost(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        services = w.services

        async def reply(begin: agent_pb.Begin, _: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("certo")
            yield agent_pb.RespondResponse(usage=agent_pb.Usage(prompt_tokens=10, cost_micros=7))
            yield agent_pb.RespondResponse(done=agent_pb.Done(reason=agent_pb.Done.REASON_STOP, model="m"))

        w.agent.reply = reply
        assign = buffer_pb.Assign(turn_id="t1", conversation_id="c1")
        seen: list[Progress] = []
        await generate(
            services,
            Request(assign=assign, messages=[]),
            ContextLoader(ContextLink(services.context, load_timeout_s=5), assign),
            cutter=PartCutter(max_chars=600, max_parts=5),
            timeout_s=5,
            on_context=lambda _: None,
            on_text=lambda _: None,
            on_progress=seen.append,
        )
        end = seen[-1]
        assert end.last and end.done and end.usage
        assert (end.done.model, end.usage.prompt_tokens, end.usage.cost_micros) == ("m", 10, 7)
