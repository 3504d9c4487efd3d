"""A language model in a long conversation, with the real buffer, context and agent in one process: what it is told,
what is condensed, what it costs by the store's account, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_service.app import AgentApp
from agent_service.token_sizes import estimate
from agentic_sdr.buffer.v1 import buffer_service_pb2 as pb
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from agentic_sdr.context.v1 import context_service_pb2 as context_pb
from buffer_service.app import BufferApp
from buffer_service.settings import BufferSettings
from context_service.app import ContextApp
from context_service.settings import ContextSettings
from ingress.services import Services
from ingress.settings import IngressSettings
from ingress.turn_runner import TurnRunner
from service_kit.clock import SystemClock
from service_kit.durations import ms_to_timestamp
from service_kit.server import Server, ServerConfig
from service_kit.settings import load
from tests.agent_service.language import settings_for, until_warm
from tests.agent_service.talking import demo
from tests.ingress.test_turn_runner import CONTACT, HONEST, SCOPE, ProviderStandIn
from tests.stand_ins.openai_server import Answer, Asked, Called, OpenAIServer, Told, calls, says

SAVED = Called(name="update_lead", arguments='{"name": "Carlos", "bill_value": "4.500,00"}')
HUMAN = Called(name="handoff_to_human", arguments='{"reason": "pediu uma pessoa"}')
SUMMARY = "Carlos perguntou muito sobre prazos e recebeu as respostas."
COST = Told(prompt=600, completion=10)


@dataclass
class World:
    """One lead, and everything that answers them."""

    server: OpenAIServer
    provider: ProviderStandIn
    services: Services
    runner: TurnRunner
    finished: list[Any]
    conversation_id: str = ""

    async def write(self, words: str) -> None:
        """One message, until its turn is over."""
        before = len(self.finished)
        await self.deliver(words)
        await self.until(lambda: len(self.finished) > before and not self.runner._summaries._tasks)

    async def deliver(self, words: str) -> None:
        message = message_pb2.Message(
            message_id=f"m-{words[:40]}",
            author=message_pb2.AUTHOR_LEAD,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            text=words,
            provider_time=ms_to_timestamp(int(time.time() * 1000)),
        )
        answer = await self.services.enqueue([pb.Event(scope=SCOPE, contact=CONTACT, message=message)])
        self.conversation_id = answer.results[0].conversation_id

    async def known(self) -> lead_pb2.ConversationContext:
        request = context_pb.LoadContextRequest(
            conversation_id=self.conversation_id, scope=SCOPE, contact=CONTACT, min_version=len(self.finished)
        )
        answer: context_pb.LoadContextResponse = await self.services.context.LoadContext(request, timeout=5)
        return answer.context

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not met():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def world(tmp_path: Path, **environ: str) -> AsyncIterator[World]:
    at = {name: f"unix:{tmp_path}/{name}" for name in ("buffer", "context", "agent")}
    data = {"SDR_DATA_DIR": str(tmp_path)}
    # Each answer comes within milliseconds, as no person's does.
    agent_environ = {"SDR_AGENT_LOOP_GUARD": "false", **environ}
    buffer_environ = {**data, "SDR_BUFFER_QUIET_MS": "1", "SDR_BUFFER_COMMIT_HOLD_MS": "0"}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(OpenAIServer())
        for name, app in {
            "buffer": BufferApp(load(BufferSettings, environ=buffer_environ, env_file=None)),
            "context": ContextApp(load(ContextSettings, environ=data, env_file=None)),
            "agent": AgentApp(settings_for(server, **agent_environ)),
        }.items():
            config = ServerConfig(service=name, address=at[name], grace_s=0.2)
            await stack.enter_async_context(Server(app, config))
        services = Services(**at)
        stack.push_async_callback(services.close)
        await until_warm(services.agent)
        provider, finished = ProviderStandIn(), list[Any]()
        runner = TurnRunner(
            services=services,
            providers={"test": provider},
            settings=load(IngressSettings, environ=data, env_file=None),
            clock=SystemClock(),
            honest_sentence=lambda: HONEST,
            on_finished=finished.append,
        )
        running = asyncio.create_task(runner.run())
        try:
            yield World(server, provider, services, runner, finished)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await runner.close()


def is_summary(asked: Asked) -> bool:
    return asked.messages[0]["content"].startswith("Você resume")


async def test_sixty_turns_are_condensed_kept_within_the_budget_and_counted_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spent: list[Told] = []

        def brain(asked: Asked) -> Answer:
            spent.append(COST)
            if is_summary(asked):
                return says(SUMMARY, told=COST)
            last = asked.messages[-1]
            if "sou o Carlos" in last["content"]:
                return calls(SAVED, told=COST)
            return says(f"Entendi, resposta {len(spent)}. ", "Quer saber mais?", told=COST)

        w.server.otherwise = brain
        await w.write("oi, sou o Carlos e pago 4.500")
        for number in range(1, 60):
            await w.write(f"pergunta {number}: e o prazo, como fica? " + "conte mais, por favor. " * 10)
        known = await w.known()
        prompts = [asked for asked in w.server.turns if not is_summary(asked)]
        summaries = [asked for asked in w.server.turns if is_summary(asked)]
        assert len(w.provider.sent) == 60 and HONEST not in w.provider.sent
        assert 2 <= len(summaries) <= 12 and known.summary.startswith(SUMMARY) and known.summary_through > 60
        assert (known.lead.name, known.lead.bill_value_cents) == ("Carlos", 450_000)
        for asked in prompts[2:]:
            text = "".join(message["content"] for message in asked.messages)
            assert "nome Carlos" in text and "4.500" in text, "every fact is in every prompt"
            assert estimate(text) + estimate(str(asked.body["tools"])) < 6_500
        last = str(prompts[-1].messages)
        assert SUMMARY in last and "pergunta 58:" in last and "pergunta 10:" not in last
        for before, after in pairwise(prompts):
            assert before.messages[0] == after.messages[0] and before.body["tools"] == after.body["tools"]
        total = len(spent) * (COST.prompt + COST.completion)
        assert (known.usage.conversation_tokens, known.usage.tenant_tokens) == (total, total)


async def test_a_used_up_budget_is_said_once_and_a_human_is_called(tmp_path: Path) -> None:
    async with world(tmp_path, SDR_AGENT_DAILY_TOKENS_PER_CONVERSATION="1000") as w:
        w.server.otherwise = lambda asked: says(f"Resposta {len(w.server.turns)}.", told=COST)
        for number in range(3):
            await w.write(f"pergunta {number}")
        await w.deliver("alguém aí?")
        await w.until(lambda: w.runner.counters["assigned"] == 3)
        assert w.provider.sent == ["Resposta 1.", "Resposta 2.", *demo().limit_sentence.split("\n\n")]
        assert len(w.server.turns) == 2, "nothing is asked above the budget"
        lane = await w.services.buffer.GetLane(pb.GetLaneRequest(conversation_id=w.conversation_id), timeout=5)
        assert lane.lane.state == pb.LANE_STATE_PAUSED


async def test_a_hand_over_is_one_sentence_and_then_silence(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        said = "Claro! **A equipe** continua com você.\n\n- já já alguém chama"
        w.server.script.extend([calls(HUMAN, told=COST), says(said, told=COST)])
        await w.write("pode me ajudar com algo diferente?")
        await w.deliver("oi?")
        assert w.provider.sent == ["Claro! *A equipe* continua com você.", "já já alguém chama"]
        lane = await w.services.buffer.GetLane(pb.GetLaneRequest(conversation_id=w.conversation_id), timeout=5)
        assert lane.lane.state == pb.LANE_STATE_PAUSED and len(w.server.turns) == 2
        assert (await w.known()).usage.conversation_tokens == 2 * 610, "both rounds, each once"


@pytest.mark.parametrize("playbook", ["true", "false"])
async def test_an_outage_is_answered_once_and_costs_what_it_cost(tmp_path: Path, playbook: str) -> None:
    async with world(tmp_path, SDR_AGENT_PLAYBOOK_FALLBACK=playbook) as w:
        w.server.otherwise = says("<think>hm", told=COST)
        await w.write("oi")
        asked = len(w.server.turns)
        if playbook == "true":
            assert asked == 1 and HONEST not in w.provider.sent and "Helen" in w.provider.sent[0]
        else:
            assert w.provider.sent == [HONEST]
        assert (await w.known()).usage.conversation_tokens == asked * 610
