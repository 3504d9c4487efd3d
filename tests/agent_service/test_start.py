"""How the agent starts in front of a model server that is slow, dead or silent."""

import asyncio

import pytest

from agent_service.app import AgentApp
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from service_kit.testing import in_process
from tests.agent_service.language import TIMEOUT_S, ask, settings_for
from tests.stand_ins.openai_server import MODEL, Answer, OpenAIServer, says

REAL = f"openai:{MODEL}"
PATIENCE_MS = 500


async def until_ready(app: AgentApp) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await app.ready():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("lists_models", [False, True], ids=["it says nothing", "only its list of models comes"])
@pytest.mark.parametrize("answer", [Answer(wait_s=600.0), Answer(fault="hang")], ids=["no headers", "no token"])
async def test_a_server_that_hangs_keeps_nobody_from_being_answered(lists_models: bool, answer: Answer) -> None:
    """It took the connection, said nothing, and the agent was not serving for 25 s, with the playbook at hand."""
    async with OpenAIServer() as server:
        server.models_wait_s, server.warm_up = 0.0 if lists_models else 600.0, answer
        app = AgentApp(settings_for(server, SDR_AGENT_FIRST_TOKEN_MS=str(PATIENCE_MS)))
        async with in_process(app) as channel:
            stub = rpc.AgentServiceStub(channel)
            await until_ready(app)
            agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
            heard = await ask(stub)
            assert not server.turns and heard.done
    assert agent.warm_up.ToMilliseconds() >= PATIENCE_MS
    assert (agent.models[0].available, agent.models[0].trouble) == (False, "warming")
    assert (heard.done.model, heard.done.fallback_reason) == ("playbook", "warming")


async def test_a_server_that_hung_at_the_start_is_asked_as_soon_as_it_is_warm() -> None:
    async with OpenAIServer() as server:
        server.warm_up = Answer(fault="hang")
        app = AgentApp(settings_for(server, SDR_AGENT_FIRST_TOKEN_MS=str(PATIENCE_MS)))
        async with in_process(app) as channel:
            stub = rpc.AgentServiceStub(channel)
            await until_ready(app)
            server.release()
            async with asyncio.timeout(TIMEOUT_S):
                while not (await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)).models[0].available:
                    await asyncio.sleep(0.05)
            heard = await ask(stub)
    assert len([asked for asked in server.asked if asked.is_warm_up]) == 1
    assert heard.done and (heard.done.model, heard.done.fallback_reason) == (REAL, "")


async def test_a_server_that_is_slow_but_answers_is_warm_before_anybody_is_served() -> None:
    async with OpenAIServer() as server:
        server.models_wait_s, server.warm_up = 0.4, says("o", pause_s=0.4)
        app = AgentApp(settings_for(server, SDR_AGENT_FIRST_TOKEN_MS="3000"))
        async with in_process(app) as channel:
            await until_ready(app)
            heard = await ask(rpc.AgentServiceStub(channel))
            agent = await rpc.AgentServiceStub(channel).GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
    assert heard.done and heard.done.model == REAL
    assert agent.models[0].available and agent.warm_up.ToMilliseconds() >= 700


async def test_without_another_model_the_agent_waits_for_the_one_that_it_has() -> None:
    async with OpenAIServer() as server:
        server.warm_up = Answer(wait_s=1.5)
        environ = {"SDR_AGENT_FIRST_TOKEN_MS": str(PATIENCE_MS), "SDR_AGENT_PLAYBOOK_FALLBACK": "false"}
        app = AgentApp(settings_for(server, **environ))
        async with in_process(app) as channel:
            await asyncio.sleep(1.0)
            assert not await app.ready()
            await until_ready(app)
            heard = await ask(rpc.AgentServiceStub(channel))
    assert heard.done and heard.done.model == REAL
