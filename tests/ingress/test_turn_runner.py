"""The turn runner against the real buffer, with an agent and a context that do what a test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentic_sdr.agent.v1 import agent_service_pb2 as agent_pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from agentic_sdr.context.v1 import context_service_pb2_grpc
from buffer_service.app import BufferApp
from buffer_service.settings import BufferSettings
from ingress import turn_runner
from ingress.providers import Destination, SendResult
from ingress.providers.console import ConsoleProvider
from ingress.services import Services
from ingress.settings import IngressSettings
from ingress.turn_runner import TurnRunner
from service_kit.clock import SystemClock
from service_kit.durations import ms_to_timestamp
from service_kit.server import Server, ServerConfig
from service_kit.settings import load
from service_kit.testing import _Plain

HONEST = "Desculpe, tive um problema."
SCOPE = message_pb2.Scope(channel="test", instance="one")
CONTACT = message_pb2.Contact(contact="5581999990001", aliases=["phone:5581999990001"], address="lead")

Reply = Callable[[agent_pb.Begin, Any], AsyncIterator[agent_pb.RespondResponse]]


def text(words: str) -> agent_pb.RespondResponse:
    return agent_pb.RespondResponse(text=agent_pb.TextDelta(text=words))


def done(reason: agent_pb.Done.Reason.ValueType = agent_pb.Done.REASON_STOP) -> agent_pb.RespondResponse:
    return agent_pb.RespondResponse(done=agent_pb.Done(reason=reason))


class Agent(agent_service_pb2_grpc.AgentServiceServicer):
    """Says what the test's generator says."""

    def __init__(self) -> None:
        self.begins: list[agent_pb.Begin] = []
        self.contexts: list[lead_pb2.ConversationContext] = []
        self.shown: dict[str, lead_pb2.ConversationContext] = {}
        self.cancelled = 0
        self.refusals = 0
        self.reply: Reply = self.echo

    async def echo(self, begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
        for message in begin.messages:
            yield text(f"você disse {message.text}\n\n")
        yield done()

    async def Respond(
        self, request_iterator: AsyncIterator[agent_pb.RespondRequest], context: Any
    ) -> AsyncIterator[agent_pb.RespondResponse]:
        try:
            if self.refusals:
                self.refusals -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
            begin = (await anext(request_iterator)).begin
            self.begins.append(begin)
            self.contexts.append((await anext(request_iterator)).context)
            self.shown[begin.turn_id] = self.contexts[-1]
            async for frame in self.reply(begin, context):
                yield frame
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class ContextStandIn(context_service_pb2_grpc.ContextServiceServicer):
    """Remembers records; can be down."""

    def __init__(self) -> None:
        self.down = False
        self.delay_s = 0.0
        self.record_delay_s = 0.0
        self.records: list[turn_pb2.TurnRecord] = []
        self.loads = 0

    async def _check(self, context: Any) -> None:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")

    async def LoadContext(self, request: context_pb.LoadContextRequest, context: Any) -> context_pb.LoadContextResponse:
        self.loads += 1
        await self._check(context)
        await asyncio.sleep(self.delay_s)
        lead = lead_pb2.Lead(name=request.contact.contact)
        known = lead_pb2.ConversationContext(
            conversation_id=request.conversation_id, version=len(self.records), lead=lead
        )
        return context_pb.LoadContextResponse(context=known)

    async def RecordTurn(self, request: context_pb.RecordTurnRequest, context: Any) -> context_pb.RecordTurnResponse:
        await self._check(context)
        await asyncio.sleep(self.record_delay_s)
        if any(m.text == "impossível" for m in request.record.messages):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "never")
        if all(r.turn_id != request.record.turn_id for r in self.records):
            self.records.append(request.record)
        return context_pb.RecordTurnResponse(version=len(self.records))


class ProviderStandIn(ConsoleProvider):
    """Keeps what was sent; answers what the test wants."""

    name = "test"

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.outcomes: list[pb.SendOutcome.ValueType] = []
        self.before: Callable[[], Awaitable[None]] | None = None
        self.typings = 0

    async def send_text(self, to: Destination, text: str, *, part_key: str) -> SendResult:
        if self.before:
            await self.before()
        outcome = self.outcomes.pop(0) if self.outcomes else pb.SEND_OUTCOME_SENT
        if outcome != pb.SEND_OUTCOME_SENT:
            return SendResult(outcome=outcome)
        self.sent.append(text)
        return SendResult(outcome=outcome, provider_message_id=f"id-{len(self.sent)}")

    async def show_typing(self, to: Destination) -> None:
        self.typings += 1


def changes(record: turn_pb2.TurnRecord) -> list[turn_pb2.Effect]:
    """What the turn wanted to change, without the account of how it was made."""
    return [one for one in record.effects if one.WhichOneof("effect") != "generation"]


def made(record: turn_pb2.TurnRecord) -> turn_pb2.Generation:
    """How the reply was made; there is one account."""
    [account] = [one.generation for one in record.effects if one.WhichOneof("effect") == "generation"]
    return account


@dataclass
class Rig:
    """Everything of one test."""

    agent: Agent
    context: ContextStandIn
    provider: ProviderStandIn
    runner: TurnRunner
    services: Services
    running: asyncio.Task[None]
    buffer: BufferApp
    finished: list[Any] = field(default_factory=list)

    async def write(self, words: str, message_id: str = "") -> pb.EventResult:
        message = message_pb2.Message(
            message_id=message_id or words,
            author=message_pb2.AUTHOR_LEAD,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            text=words,
            provider_time=ms_to_timestamp(int(time.time() * 1000)),
        )
        response = await self.services.enqueue([pb.Event(scope=SCOPE, contact=CONTACT, message=message)])
        return response.results[0]

    def cut_stream(self) -> None:
        """The worker's stream ends; nobody stops."""
        for sid in list(self.buffer._servicer._streams):
            self.buffer._servicer._end(sid)

    async def until(self, condition: Callable[[], bool], seconds: float = 8) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def lane(self, conversation_id: str) -> pb.Lane:
        response = await self.services.buffer.GetLane(pb.GetLaneRequest(conversation_id=conversation_id), timeout=5)
        return response.lane

    async def lane_when(self, conversation_id: str, condition: Callable[[pb.Lane], bool]) -> pb.Lane:
        async with asyncio.timeout(8):
            while not condition(lane := await self.lane(conversation_id)):
                await asyncio.sleep(0.005)
        return lane


@asynccontextmanager
async def rig(tmp_path: Path, *, context: ContextStandIn | None = None, **environ: str) -> AsyncIterator[Rig]:
    environ = {"SDR_DATA_DIR": str(tmp_path), "SDR_BUFFER_QUIET_MS": "20", "SDR_BUFFER_COMMIT_HOLD_MS": "0", **environ}
    agent, context, provider = Agent(), context or ContextStandIn(), ProviderStandIn()

    def add(server: grpc.aio.Server) -> None:
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agent, server)
        context_service_pb2_grpc.add_ContextServiceServicer_to_server(context, server)

    others = ServerConfig(service="others", address=f"unix:{tmp_path}/others", grace_s=0.2)
    mine = ServerConfig(service="buffer", address=f"unix:{tmp_path}/buffer", grace_s=0.2)
    settings = load(BufferSettings, environ={k: v for k, v in environ.items() if "INGRESS" not in k}, env_file=None)
    buffer = BufferApp(settings)
    async with Server(buffer, mine), Server(_Plain(add), others):
        services = Services(buffer=mine.address, context=others.address, agent=others.address)
        finished: list[Any] = []
        runner = TurnRunner(
            services=services,
            providers={"test": provider},
            settings=load(IngressSettings, environ=environ, env_file=None),
            clock=SystemClock(),
            honest_sentence=lambda: HONEST,
            on_finished=finished.append,
        )
        running = asyncio.create_task(runner.run())
        try:
            yield Rig(agent, context, provider, runner, services, running, buffer, finished)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await runner.close()
            await services.close()


class Runner:
    """One ingress process."""

    def __init__(self, runner: TurnRunner, running: asyncio.Task[None]) -> None:
        self.runner, self.running = runner, running

    async def dies(self) -> None:
        """No goodbye: the stream breaks, nothing is released."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.runner.close()


@asynccontextmanager
async def another(r: Rig) -> AsyncIterator[Runner]:
    """A further ingress at the same buffer."""
    runner = TurnRunner(
        services=r.services,
        providers={"test": r.provider},
        settings=load(IngressSettings, environ={}, env_file=None),
        clock=SystemClock(),
        honest_sentence=lambda: HONEST,
        on_finished=r.finished.append,
    )
    process = Runner(runner, asyncio.create_task(runner.run()))
    try:
        yield process
    finally:
        await process.dies()


async def test_each_bubble_goes_out_while_the_next_is_written(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        first_is_out = asyncio.Event()

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("um\n\n")
            await first_is_out.wait()
            yield text("dois")
            yield done()

        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: r.provider.sent == ["um"])
        first_is_out.set()
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["um", "dois"]
        [record] = r.context.records
        assert [p.text for p in record.parts] == ["um", "dois"]
        timeline = r.finished[0].timeline
        assert sum(timeline.segments_ms().values()) == pytest.approx(timeline.total_ms, abs=1)


async def test_an_agent_that_dies_in_mid_reply_goes_on_after_what_was_said(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            if not begin.said:
                yield text("um\n\n")
                await asyncio.sleep(0.05)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield text("dois")
            yield done()

        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert list(r.agent.begins[1].said) == ["um"]
        assert r.provider.sent == ["um", "dois"]
        assert not r.context.records[0].truncated


async def test_a_reply_that_is_given_up_after_its_first_words_is_paid_for(tmp_path: Path) -> None:
    """What the failed generations had told went with them, for the reply never came to its end."""
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            if not begin.said:
                yield text("um\n\n")
            yield agent_pb.RespondResponse(usage=agent_pb.Usage(prompt_tokens=100, completion_tokens=3, cost_micros=7))
            await asyncio.sleep(0.05)
            await context.abort(grpc.StatusCode.INTERNAL, "no")

        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        [record] = r.context.records
        account, calls = made(record), len(r.agent.begins)
        assert r.provider.sent == ["um"] and record.truncated and calls > 1
        assert (account.discarded_tokens, account.cost_micros) == (calls * 103, calls * 7)
        assert not account.fallback, "what was said is the model's own"


async def test_a_model_that_always_fails_ends_in_the_honest_sentence(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            await context.abort(grpc.StatusCode.INTERNAL, "no")
            yield done()

        r.agent.reply = reply
        result = await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == [HONEST]
        assert made(r.context.records[0]).fallback, "it is no knowledge"
        lane = await r.lane(result.conversation_id)
        assert lane.needs_human and lane.state == pb.LANE_STATE_IDLE


async def test_an_empty_reply_is_a_failure_but_silence_is_a_choice(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def silent(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield done(agent_pb.Done.REASON_SILENT)

        r.agent.reply = silent
        await r.write("figurinha")
        await r.until(lambda: len(r.finished) == 1)
        assert r.provider.sent == []
        assert [m.text for m in r.context.records[0].messages] == ["figurinha"]

        async def empty(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield done()

        r.agent.reply = empty
        await r.write("oi")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.sent == [HONEST]


def hands_over_in_silence(r: Rig) -> Reply:
    async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
        yield agent_pb.RespondResponse(effect=turn_pb2.Effect(lead_update=turn_pb2.LeadUpdate(name="João")))
        yield agent_pb.RespondResponse(effect=turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="asked")))
        yield agent_pb.RespondResponse(usage=agent_pb.Usage(prompt_tokens=100, completion_tokens=9))
        yield done(agent_pb.Done.REASON_SILENT)

    return reply


async def test_what_a_silent_hand_over_learned_and_cost_goes_into_history(tmp_path: Path) -> None:
    """The buffer dropped the effects of every turn of which nothing was said: the name was forgotten, the tokens were
    on nobody's budget, and the colleague was not told why."""
    async with rig(tmp_path) as r:
        r.agent.reply = hands_over_in_silence(r)
        result = await r.write("sou o João, quero falar com alguém")
        await r.until(lambda: bool(r.finished))
        [record] = r.context.records
        assert [one.WhichOneof("effect") for one in changes(record)] == ["lead_update", "handoff"]
        assert made(record).prompt_tokens == 100 and record.handoff and not record.parts
        assert (await r.lane(result.conversation_id)).state == pb.LANE_STATE_PAUSED


async def test_a_silence_that_changes_hands_is_not_thought_over_again(tmp_path: Path) -> None:
    """The record of the first worker may be in history: what the second one would say never got there."""
    async with rig(tmp_path, SDR_INGRESS_RECORD_TIMEOUT_MS="5000") as r:
        r.agent.reply = hands_over_in_silence(r)
        r.context.record_delay_s = 1.0
        await r.write("oi")
        await r.until(lambda: r.runner.counters["assigned"] == 1 and len(r.agent.contexts) == 1)
        await r.runner.drain(turns_s=0.2, sends_s=0.2)
        r.context.record_delay_s = 0.0
        r.agent.reply = r.agent.echo
        async with another(r) as second:
            await r.until(lambda: bool(r.finished))
        assert second.runner.counters["assigned"] == 1 and len(r.agent.begins) == 1
        assert r.provider.sent == [] and len(r.context.records) == 1


@pytest.mark.slow
async def test_context_down_degrades_the_turn_and_the_record_follows_in_order(tmp_path: Path) -> None:
    async with rig(tmp_path, SDR_INGRESS_CONTEXT_TIMEOUT_MS="300") as r:
        r.context.down = True
        await r.write("um")
        await r.until(lambda: len(r.finished) == 1)
        await r.write("dois")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.sent == ["você disse um", "você disse dois"]
        assert all(c.degraded for c in r.agent.contexts)
        overlaid = [line.text for line in r.agent.contexts[1].history]
        assert overlaid == ["um", "você disse um"], "what the buffer still has is not forgotten"
        r.context.down = False
        await r.until(lambda: len(r.context.records) == 2)
        assert [m.text for record in r.context.records for m in record.messages] == ["um", "dois"]


async def test_a_refused_send_is_repeated_and_a_final_one_is_not(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.provider.outcomes = [pb.SEND_OUTCOME_REFUSED_RETRY]
        await r.write("oi")
        await r.until(lambda: len(r.finished) == 1)
        assert r.provider.sent == ["você disse oi"]
        r.provider.outcomes = [pb.SEND_OUTCOME_REFUSED_FINAL]
        result = await r.write("de novo")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.sent == ["você disse oi"]
        assert (await r.lane(result.conversation_id)).needs_human


async def test_unknown_is_never_sent_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.provider.outcomes = [pb.SEND_OUTCOME_UNKNOWN]
        result = await r.write("oi")
        await r.until(lambda: len(r.finished) == 1)
        assert r.provider.sent == []
        lane = await r.lane(result.conversation_id)
        assert lane.ended_turns[0].parts[0].state == turn_pb2.PART_STATE_UNKNOWN
        assert lane.needs_human


async def test_a_human_between_two_parts_takes_over(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        human = message_pb2.Message(
            message_id="h1", author=message_pb2.AUTHOR_HUMAN, type=message_pb2.MESSAGE_TYPE_TEXT, text="deixa comigo"
        )

        async def take_over() -> None:
            r.provider.before = None
            await r.services.enqueue([pb.Event(scope=SCOPE, contact=CONTACT, message=human)])

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("um\n\ndois\n\ntrês")
            yield done()

        r.agent.reply, r.provider.before = reply, take_over
        result = await r.write("oi")
        await r.until(lambda: len(r.context.records) == 2)
        assert r.provider.sent == ["um"], "only the part that was on its way"
        assert [p.text for p in r.context.records[0].parts] == ["um"]
        assert (await r.lane(result.conversation_id)).state == pb.LANE_STATE_PAUSED


async def test_handing_over_pauses_after_the_reply(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            handoff = turn_pb2.Handoff(reason="asked")
            yield agent_pb.RespondResponse(effect=turn_pb2.Effect(handoff=handoff))
            yield text("Já chamo uma pessoa.")
            yield done()

        r.agent.reply = reply
        result = await r.write("quero um humano")
        await r.until(lambda: bool(r.finished))
        lane = await r.lane(result.conversation_id)
        assert lane.state == pb.LANE_STATE_PAUSED
        assert lane.needs_human, "a lead who waits for a human shows in the status"
        assert r.context.records[0].handoff


async def test_typing_is_shown_once_and_only_when_it_takes_long(tmp_path: Path) -> None:
    async with rig(tmp_path, SDR_INGRESS_TYPING_AFTER_MS="1000") as r:
        await r.write("rápido")
        await r.until(lambda: len(r.finished) == 1)

        async def slow(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            await asyncio.sleep(1.5)
            yield text("enfim")
            yield done()

        assert r.provider.typings == 0
        r.agent.reply = slow
        await r.write("devagar")
        await r.until(lambda: len(r.finished) == 2)
        assert r.provider.typings == 1


async def test_draining_gives_back_what_is_still_being_generated(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def endless(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            await asyncio.sleep(60)
            yield done()

        r.agent.reply = endless
        result = await r.write("oi")
        await r.until(lambda: bool(r.agent.begins))
        await r.runner.drain(turns_s=0.2, sends_s=0.2)
        lane = await r.lane_when(result.conversation_id, lambda lane: lane.state == pb.LANE_STATE_WAITING)
        assert lane.turn.attempts == 0
        await r.until(lambda: r.agent.cancelled == 1)


async def test_cancelling_stops_the_model_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def endless(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            await asyncio.sleep(60)
            yield done()

        r.agent.reply = endless
        result = await r.write("oi")
        await r.until(lambda: bool(r.agent.begins))
        pause = pb.PauseConversationRequest(conversation_id=result.conversation_id)
        await r.services.buffer.PauseConversation(pause, timeout=5)
        await r.until(lambda: r.agent.cancelled == 1, seconds=1)


async def test_an_agent_that_ends_before_the_context_arrives_is_asked_again(tmp_path: Path) -> None:
    """Writing into a call that has ended raises InvalidStateError, which once left the lead waiting for 47 s."""
    async with rig(tmp_path) as r:
        r.context.delay_s, r.agent.refusals = 0.2, 1
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["você disse oi"]


@pytest.mark.slow
async def test_a_send_that_is_refused_twice_while_the_reply_streams_goes_on_at_once(tmp_path: Path) -> None:
    """A later Commit replaces a parked answer, which then never came: the turn stood still for 48 s."""
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            for word in ("um", "dois", "três"):
                yield text(f"{word}\n\n")
                await asyncio.sleep(0.3)
            yield done()

        r.agent.reply = reply
        r.provider.outcomes = [pb.SEND_OUTCOME_REFUSED_RETRY, pb.SEND_OUTCOME_REFUSED_RETRY]
        await r.write("oi")
        await r.until(lambda: bool(r.finished), seconds=12)
        assert r.provider.sent == ["um", "dois", "três"]


async def test_what_a_failed_generation_wanted_to_change_leaves_no_trace(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            if len(r.agent.begins) == 1:
                yield agent_pb.RespondResponse(effect=turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="x")))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield text("oi")
            yield done()

        r.agent.reply = reply
        result = await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert not r.agent.begins[1].said_effects
        assert not changes(r.context.records[0])
        assert (await r.lane(result.conversation_id)).state == pb.LANE_STATE_IDLE


@pytest.mark.parametrize("said", [[], ["um"]])
async def test_a_model_that_hangs_until_the_deadline_is_paid_for_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """What it told that it cost was on nobody's budget, and what it wanted to change after its last words was done."""
    monkeypatch.setattr(turn_runner, "HONEST_MARGIN_S", 9.0)
    async with rig(tmp_path, SDR_TURN_DEADLINE_MS="11000") as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            for words in said:
                yield text(f"{words}\n\n")
            yield agent_pb.RespondResponse(usage=agent_pb.Usage(prompt_tokens=100, completion_tokens=9, cost_micros=3))
            yield agent_pb.RespondResponse(effect=turn_pb2.Effect(handoff=turn_pb2.Handoff(reason="x")))
            await asyncio.sleep(60)

        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        [record] = r.context.records
        assert r.provider.sent == (said or [HONEST]) and record.truncated == bool(said)
        assert (made(record).discarded_tokens, made(record).cost_micros) == (109, 3)
        assert not changes(record) and made(record).fallback == (not said)


async def test_pacing_waits_without_asking_in_a_circle(tmp_path: Path) -> None:
    async with rig(tmp_path, SDR_INGRESS_PACING_MS="500") as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("um\n\ndois")
            yield done()

        sent: list[pb.RunTurnsRequest] = []
        send = r.runner.link.send
        r.runner.link.send = lambda frame: (sent.append(frame), send(frame))[1]  # type: ignore[method-assign]
        r.agent.reply = reply
        await r.write("oi")
        await r.until(lambda: bool(r.finished))
        assert r.provider.sent == ["um", "dois"]
        assert len(sent) < 10


async def test_a_stream_lost_during_the_pacing_does_not_hide_the_next_send(tmp_path: Path) -> None:
    """The pause after a part ended in the middle of the next send and took it for over: the buffer was asked in a
    circle, and a drain gave the turn back as never begun, so that the part would have been sent twice."""
    async with rig(tmp_path, SDR_INGRESS_PACING_MS="500") as r:

        async def reply(begin: agent_pb.Begin, context: Any) -> AsyncIterator[agent_pb.RespondResponse]:
            yield text("um\n\ndois")
            yield done()

        held = asyncio.Event()

        async def second_slowly() -> None:
            if r.provider.sent:
                await held.wait()

        asked: list[pb.RunTurnsRequest] = []
        send = r.runner.link.send
        r.runner.link.send = lambda frame: (asked.append(frame), send(frame))[1]  # type: ignore[method-assign]
        r.agent.reply, r.provider.before = reply, second_slowly
        result = await r.write("oi")
        await r.until(lambda: r.provider.sent == ["um"])
        await asyncio.sleep(0.05)
        r.cut_stream()
        await r.until(lambda: not r.runner.link.connected)
        await asyncio.sleep(0.8)
        assert len(asked) < 10, "no circle"
        draining = asyncio.create_task(r.runner.drain(turns_s=0.1, sends_s=3))
        await asyncio.sleep(0.3)
        held.set()
        await draining
        lane = await r.lane(result.conversation_id)
        assert [p.state for p in _parts(lane)] == [turn_pb2.PART_STATE_SENT] * 2
        assert r.provider.sent == ["um", "dois"]


def _parts(lane: pb.Lane) -> Sequence[pb.Part]:
    return lane.turn.parts or lane.ended_turns[0].parts


async def test_an_old_send_is_reported_although_the_worker_drains(tmp_path: Path) -> None:
    """A part that this process has sent was once released as never begun, so another worker would send it again."""
    async with rig(tmp_path) as r:
        held = asyncio.Event()

        async def slowly() -> None:
            await held.wait()

        r.provider.before = slowly
        result = await r.write("oi")
        await r.until(lambda: r.runner.held_turns == 1 and bool(r.agent.begins))
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(r.runner.drain(turns_s=0.1, sends_s=3))
        await asyncio.sleep(0.3)
        held.set()
        await draining
        lane = await r.lane_when(
            result.conversation_id, lambda lane: _parts(lane)[0].state != turn_pb2.PART_STATE_ATTEMPTING
        )
        assert [p.state for p in _parts(lane)] == [turn_pb2.PART_STATE_SENT]
        assert r.provider.sent == ["você disse oi"]


async def test_a_turn_that_history_will_never_take_does_not_block_those_behind_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await r.write("impossível")
        await r.until(lambda: len(r.finished) == 1)
        await r.write("depois")
        await r.until(lambda: bool(r.context.records))
        assert [m.text for m in r.context.records[0].messages] == ["depois"]
