"""The agent with a language model behind it: the scripted server, the real service in process, one reply as heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent_service.app import AgentApp
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from service_kit.durations import ms_to_duration, ms_to_timestamp
from service_kit.settings import load
from service_kit.testing import in_process
from tests.agent_service.talking import MONDAY_10H
from tests.stand_ins.openai_server import MODEL, OpenAIServer

TIMEOUT_S = 30
# Generous, so that a busy machine is no fault; what hangs takes that long.
FIRST_TOKEN_MS = 1_500


def settings_for(server: OpenAIServer, **environ: str) -> AgentSettings:
    given = {
        "SDR_AGENT_MODEL": f"openai:{MODEL}",
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": "sk-test-0123456789abcdef",
        "SDR_AGENT_FIRST_TOKEN_MS": str(FIRST_TOKEN_MS),
        "SDR_AGENT_IDLE_MS": str(FIRST_TOKEN_MS),
        **environ,
    }
    return load(AgentSettings, environ=given, env_file=None)


@asynccontextmanager
async def serving(server: OpenAIServer, **environ: str) -> AsyncGenerator[rpc.AgentServiceStub, None]:
    async with in_process(AgentApp(settings_for(server, **environ))) as channel:
        stub = rpc.AgentServiceStub(channel)
        await until_warm(stub)
        yield stub


async def until_warm(stub: Any) -> pb.GetAgentResponse:
    """On a busy machine the warm-up may still run when the port answers."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            agent: pb.GetAgentResponse = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
            if agent.state != pb.AGENT_STATE_WARMING:
                return agent
            await asyncio.sleep(0.02)


@dataclass
class Heard:
    """A reply as ingress gets it."""

    text: str = ""
    effects: list[turn_pb2.Effect] = field(default_factory=list)
    usage: pb.Usage | None = None
    done: pb.Done | None = None
    order: list[str] = field(default_factory=list)
    first_ms: int | None = None

    @property
    def reason(self) -> str:
        assert self.done is not None
        return pb.Done.Reason.Name(self.done.reason).removeprefix("REASON_")


async def ask(stub: Any, *texts: str, conversation: str = "c-1", remaining_ms: int = 10_000, **context: Any) -> Heard:
    """One turn. Raises AioRpcError."""
    heard = Heard()
    started = time.monotonic()
    async for response in stub.Respond(iter(frames(texts, conversation, remaining_ms, context)), timeout=TIMEOUT_S):
        kind = response.WhichOneof("frame")
        heard.order.append(kind)
        if kind == "text":
            heard.text += response.text.text
            heard.first_ms = heard.first_ms or round((time.monotonic() - started) * 1000)
        elif kind == "effect":
            heard.effects.append(response.effect)
        elif kind == "usage":
            assert heard.usage is None, "one report for a turn"
            heard.usage = response.usage
        else:
            heard.done = response.done
    return heard


def frames(
    texts: Sequence[str], conversation: str, remaining_ms: int, context: dict[str, Any]
) -> list[pb.RespondRequest]:
    """Begin and Context."""
    messages = [
        message_pb2.Message(
            message_id=f"m-{number}",
            author=message_pb2.AUTHOR_LEAD,
            type=message_pb2.MESSAGE_TYPE_TEXT,
            text=text,
            accept_time=ms_to_timestamp(MONDAY_10H),
        )
        for number, text in enumerate(texts or ("oi",))
    ]
    begin = pb.Begin(
        turn_id="t-1", conversation_id=conversation, messages=messages, remaining=ms_to_duration(remaining_ms)
    )
    known = lead_pb2.ConversationContext(conversation_id=conversation, **context)
    return [pb.RespondRequest(begin=begin), pb.RespondRequest(context=known)]
