"""The whole agent on real weights: warm before it is ready, and two turns of a conversation.

What so small a base model writes may be unfit for a lead; then the playbook answers, which is as it should be.
"""

import asyncio

import pytest

from agent_service.app import AgentApp
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2
from bench.small_weights import small_weights
from service_kit.durations import ms_to_timestamp
from service_kit.settings import load
from service_kit.testing import in_process
from tests.agent_service.language import ask
from tests.agent_service.talking import MONDAY_10H

PATIENCE_S = 240.0


def line(sequence: int, author: message_pb2.Author, text: str) -> lead_pb2.HistoryMessage:
    return lead_pb2.HistoryMessage(
        sequence=sequence, author=author, text=text, create_time=ms_to_timestamp(MONDAY_10H - 60_000)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_conversation_on_local_weights_starts_warm_and_stays_warm() -> None:
    environ = {
        "SDR_AGENT_MODEL": f"gguf:{small_weights()}",
        "SDR_AGENT_LOCAL_SLOTS": "2",
        "SDR_AGENT_LOCAL_THREADS": "1",
        "SDR_AGENT_MAX_OUTPUT_TOKENS": "16",
    }
    app = AgentApp(load(AgentSettings, environ=environ, env_file=None))
    async with in_process(app) as channel:
        stub = rpc.AgentServiceStub(channel)
        async with asyncio.timeout(PATIENCE_S):
            while not await app.ready():
                await asyncio.sleep(0.05)
        agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=30)
        first = await ask(stub, "oi, tudo bem?", remaining_ms=120_000)
        history = [
            line(1, message_pb2.AUTHOR_LEAD, "oi, tudo bem?"),
            line(2, message_pb2.AUTHOR_ASSISTANT, first.text),
        ]
        second = await ask(stub, "quanto custa?", remaining_ms=120_000, history=history)
    assert [model.name for model in agent.models] == ["gguf:gemma-3-270m-q4_k_m", "playbook"]
    assert not agent.costs_money
    assert any(step.name.endswith("prefix_primed") for step in agent.steps)
    for heard in (first, second):
        assert heard.text and heard.done and heard.usage
        assert heard.usage.cached_tokens > 0.8 * heard.usage.prompt_tokens, "only what is new was read"
