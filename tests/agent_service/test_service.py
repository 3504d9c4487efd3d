"""The agent through a real server in this process."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent_service.agent import Agent
from agent_service.app import AgentApp
from agent_service.conversation import Lead, Line, ModelEvent, TextDelta, Turn
from agent_service.models import ModelState
from agent_service.persona import Persona
from agent_service.persona_source import PersonaSource
from agent_service.settings import AgentSettings
from agentic_sdr.agent.v1 import agent_service_pb2 as pb
from agentic_sdr.agent.v1 import agent_service_pb2_grpc as rpc
from agentic_sdr.common.v1 import lead_pb2, message_pb2, turn_pb2
from service_kit import errors
from service_kit.clock import SystemClock
from service_kit.durations import ms_to_duration, ms_to_timestamp
from service_kit.settings import ConfigurationError, load
from service_kit.testing import in_process
from tests.agent_service.language import until_warm
from tests.agent_service.talking import MONDAY_10H, asked, demo
from tests.agent_service.test_persona_files import copy_of_demo

TIMEOUT_S = 10


def settings(**environ: str) -> AgentSettings:
    return load(AgentSettings, environ=environ, env_file=None)


@asynccontextmanager
async def serving(app: AgentApp | None = None, **environ: str) -> AsyncGenerator[Any, None]:
    async with in_process(app or AgentApp(settings(**environ))) as channel:
        stub = rpc.AgentServiceStub(channel)
        if app is None:
            await until_warm(stub)
        yield stub


def message(text: str, kind: int = message_pb2.MESSAGE_TYPE_TEXT) -> message_pb2.Message:
    return message_pb2.Message(
        message_id=f"m-{text[:20]}",
        author=message_pb2.AUTHOR_LEAD,
        type=kind,  # type: ignore[arg-type]
        text=text,
        accept_time=ms_to_timestamp(MONDAY_10H),
    )


def begin(*texts: str, conversation: str = "c-1", said: Sequence[str] = (), **more: Any) -> pb.RespondRequest:
    frame = pb.Begin(turn_id="t-1", conversation_id=conversation, messages=[message(text) for text in texts], said=said)
    frame.MergeFrom(pb.Begin(**more))
    return pb.RespondRequest(begin=frame)


def context(conversation: str = "c-1", **more: Any) -> pb.RespondRequest:
    return pb.RespondRequest(context=lead_pb2.ConversationContext(conversation_id=conversation, **more))


@dataclass
class Heard:
    """A reply as its caller sees it."""

    frames: list[str] = field(default_factory=list)
    effects: list[turn_pb2.Effect] = field(default_factory=list)
    done: pb.Done | None = None

    @property
    def text(self) -> str:
        return "".join(self.frames)

    @property
    def bubbles(self) -> list[str]:
        return [bubble for bubble in self.text.split("\n\n") if bubble]


async def respond(stub: Any, *requests: pb.RespondRequest) -> Heard:
    heard = Heard()
    async for response in stub.Respond(iter(requests), timeout=TIMEOUT_S):
        assert heard.done is None, "nothing comes after Done"
        frame = response.WhichOneof("frame")
        if frame == "text":
            heard.frames.append(response.text.text)
        elif frame == "effect":
            heard.effects.append(response.effect)
        elif frame == "done":
            heard.done = response.done
    return heard


async def refusal(call: Callable[[], Any]) -> errors.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return errors.parse(caught.value)


async def test_a_reply_with_facts_and_an_end() -> None:
    async with serving() as stub:
        heard = await respond(stub, begin("oi", "sou o João", "pago uns 400 reais"), context())
    assert heard.bubbles[0].startswith("Bom dia, João! Aqui é a Helen")
    assert asked(heard.bubbles[-1], "routing_low") and len(heard.bubbles) == 2
    assert heard.effects[0].lead_update.name == "João" and heard.effects[0].lead_update.bill_value_cents == 40_000
    assert heard.effects[0].lead_update.stage == "ROUTING"
    assert heard.done is not None and heard.done.reason == pb.Done.REASON_STOP and heard.done.model == "playbook"
    assert heard.done.HasField("first_token") and heard.done.HasField("total")


async def test_the_lead_in_the_context_is_what_is_known() -> None:
    lead = lead_pb2.Lead(name="Ana", bill_value_cents=90_000, current_stage="ROUTING", preferences={"city": "Olinda"})
    line = lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_ASSISTANT, text="Como posso te chamar?")
    async with serving() as stub:
        heard = await respond(stub, begin("oi"), context(version=3, lead=lead, history=[line]))
    assert "Helen" not in heard.text and not asked(heard.text, "name") and asked(heard.text, "routing_low")


async def test_a_lookup_that_failed_is_no_new_customer() -> None:
    """A database error read as "new customer" made the monolith introduce itself in the middle of a conversation."""
    async with serving() as stub:
        heard = await respond(stub, begin("oi", "minha conta é 4 mil", "quanto custa?"), context(degraded=True))
    assert "Helen" not in heard.text and not asked(heard.text, "name") and heard.text
    assert heard.effects[0].lead_update.bill_value_cents == 400_000


async def test_display_names_are_not_believed() -> None:
    contact = message_pb2.Contact(contact="5581999990000", display_name="Hacker do Zap")
    async with serving() as stub:
        heard = await respond(stub, begin("oi", contact=contact), context())
    assert "Hacker" not in heard.text and asked(heard.text, "name")


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([context()], "begin"),
        ([], "begin"),
        ([pb.RespondRequest()], "begin"),
        ([begin("oi"), begin("oi")], "context"),
        ([begin("oi")], "context"),
    ],
    ids=["context first", "nothing", "empty frame", "begin twice", "no context"],
)
async def test_frames_out_of_order(requests: list[pb.RespondRequest], expected: str) -> None:
    async with serving() as stub:
        error = await refusal(lambda: respond(stub, *requests))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL")
    assert error.metadata == {"expected": expected}


@pytest.mark.parametrize(
    ("requests", "field_name"),
    [
        ([begin()], "begin.messages"),
        ([begin(*["oi"] * 101)], "begin.messages"),
        ([begin("oi", "x" * 200_000)], "begin.messages[1].text"),
        ([begin("oi", conversation="c" * 300)], "begin.conversation_id"),
        ([begin("oi", said=["x"] * 101)], "begin.said"),
        ([begin("oi"), context("another")], "context.conversation_id"),
    ],
    ids=["no messages", "too many", "too long", "long id", "much said", "somebody else's context"],
)
async def test_malformed_frames(requests: list[pb.RespondRequest], field_name: str) -> None:
    async with serving() as stub:
        error = await refusal(lambda: respond(stub, *requests))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.metadata == {"field": field_name}


async def test_the_context_is_waited_for_no_longer_than_the_reply_may_take() -> None:
    async with serving() as stub:
        call = stub.Respond(timeout=TIMEOUT_S)
        await call.write(begin("oi", remaining=ms_to_duration(50)))
        error = await refusal(call.read)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_that_says_nothing_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_service.service.BEGIN_S", 0.05)
    async with serving() as stub:
        error = await refusal(stub.Respond(timeout=TIMEOUT_S).read)
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_nothing_is_said_twice_after_a_crash() -> None:
    ask = begin("oi", "tudo bem?", "quanto custa?")
    async with serving() as stub:
        whole = await respond(stub, ask, context())
        assert len(whole.bubbles) == 3
        for cut in range(4):
            said = whole.bubbles[:cut]
            rest = await respond(stub, begin("oi", "tudo bem?", "quanto custa?", said=said), context())
            assert said + rest.bubbles == whole.bubbles
            assert rest.done is not None and rest.done.reason == pb.Done.REASON_STOP


async def test_effects_that_are_kept_already_are_not_called_again() -> None:
    async with serving() as stub:
        whole = await respond(stub, begin("sou o João"), context())
        again = begin("sou o João", said=whole.bubbles[:1], said_effects=whole.effects)
        rest = await respond(stub, again, context())
    assert whole.effects and not rest.effects


async def test_a_slow_playbook_streams_and_says_the_same() -> None:
    async with serving() as stub:
        fast = await respond(stub, begin("oi"), context())
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="600") as stub:
        slow = await respond(stub, begin("oi"), context())
    assert slow.text == fast.text and len(slow.frames) > len(fast.frames)
    assert slow.done is not None and slow.done.first_token.ToMilliseconds() >= 600


async def test_a_cancelled_call_stops_the_model_at_once() -> None:
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="60000") as stub:
        call = stub.Respond(timeout=TIMEOUT_S)
        await call.write(begin("oi"))
        await call.write(context())
        await _until(stub, active=1)
        call.cancel()
        async with asyncio.timeout(1):
            await _until(stub, active=0)


async def test_a_cancel_in_the_middle_of_the_text_stops_too() -> None:
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="300") as stub:
        call = stub.Respond(timeout=TIMEOUT_S)
        await call.write(begin("oi"))
        await call.write(context())
        while (await call.read()).WhichOneof("frame") != "text":
            pass
        call.cancel()
        async with asyncio.timeout(1):
            await _until(stub, active=0)
        assert (await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)).replies == 0


async def test_the_end_of_the_time_keeps_what_was_said() -> None:
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="400") as stub:
        cut = await respond(stub, begin("oi", remaining=ms_to_duration(600)), context())
        assert cut.text and cut.done is not None and cut.done.reason == pb.Done.REASON_LENGTH
        error = await refusal(lambda: respond(stub, begin("oi", remaining=ms_to_duration(50)), context()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
    assert error.metadata == {"model": "playbook"}


async def test_fifty_replies_at_once_and_none_knows_of_another() -> None:
    """Every lead names themselves and a bill; each reply may hold only its own."""
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="100") as stub:
        heard = await asyncio.gather(
            *(
                respond(
                    stub,
                    begin(f"me chamo Nome{_letters(n)}, pago {1000 + n} reais", conversation=f"c-{n}"),
                    context(f"c-{n}"),
                )
                for n in range(50)
            )
        )
    names = [f"Nome{_letters(n)}" for n in range(50)]
    for n, reply in enumerate(heard):
        assert [name for name in names if name in reply.text] == [names[n]]
        assert reply.effects[0].lead_update.bill_value_cents == (1000 + n) * 100


async def test_two_conversations_share_nothing() -> None:
    async with serving() as stub:
        await respond(stub, begin("sou o João, moro em Olinda, pago 9 mil", conversation="a"), context("a"))
        other = await respond(stub, begin("oi", conversation="b"), context("b"))
        alone = await respond(stub, begin("oi", conversation="c"), context("c"))
    assert other.text == alone.text and list(other.effects) == list(alone.effects)
    assert "João" not in other.text


async def test_too_many_replies_are_refused() -> None:
    async with serving(SDR_AGENT_PLAYBOOK_DELAY_MS="60000", SDR_AGENT_MAX_REPLIES="1") as stub:
        call = stub.Respond(timeout=TIMEOUT_S)
        await call.write(begin("oi"))
        await call.write(context())
        await _until(stub, active=1)
        error = await refusal(lambda: respond(stub, begin("oi"), context()))
        call.cancel()
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert error.metadata == {"component": "replies"} and error.retry_after_ms


async def test_stickers_audio_and_places() -> None:
    sticker = message("", message_pb2.MESSAGE_TYPE_STICKER)
    audio = message("", message_pb2.MESSAGE_TYPE_AUDIO)
    place = message("", message_pb2.MESSAGE_TYPE_LOCATION)
    place.location.latitude, place.location.longitude = -8.05, -34.9
    thumb = message("", message_pb2.MESSAGE_TYPE_UNSUPPORTED)
    thumb.provider_type = "reactionMessage"
    line = lead_pb2.HistoryMessage(author=message_pb2.AUTHOR_ASSISTANT, text="Oi!")
    async with serving() as stub:
        for silent in (sticker, thumb):
            heard = await respond(stub, begin(messages=[silent]), context(version=1, history=[line]))
            assert heard.done is not None and heard.done.reason == pb.Done.REASON_SILENT and not heard.text
        opening = await respond(stub, begin(messages=[sticker]), context())
        assert "Helen" in opening.text
        heard = await respond(stub, begin(messages=[audio]), context(version=1, history=[line]))
        assert heard.text == demo().media_sentence
        heard = await respond(stub, begin(messages=[place]), context(version=1, history=[line]))
        assert heard.effects[0].lead_update.preferences["location"] == "-8.05000,-34.90000" and heard.text


async def test_the_agent_shows_itself() -> None:
    async with serving() as stub:
        await respond(stub, begin("oi"), context())
        agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
    assert agent.state == pb.AGENT_STATE_READY and agent.model == "playbook" and not agent.costs_money
    assert (agent.persona, agent.persona_display_name) == ("demo-solar", "Helen")
    assert agent.steps[0].name == "persona_loaded" and agent.steps[-1].name == "model_warmed"
    assert agent.replies == 1 and agent.active_replies == 0 and agent.HasField("ready_time")
    assert agent.honest_sentence and agent.media_sentence


async def test_summarize_is_not_built_yet() -> None:
    async with serving() as stub:
        error = await refusal(lambda: stub.Summarize(pb.SummarizeRequest(), timeout=TIMEOUT_S))
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert error.metadata == {"method": "Summarize"}


class StubModel:
    """A model under the test's thumb."""

    name = "stub"
    costs_money = False
    available = True
    hangs = False

    def __init__(self, *, warm: asyncio.Event | None = None, after: int = 0, refuses: Exception | None = None) -> None:
        self._warm = warm
        self._refuses = refuses
        self._after = after
        self.closed = False

    async def open(self) -> None:
        return

    async def use(self, persona: Persona) -> None:
        return

    async def warm(self) -> None:
        if self._refuses is not None:
            raise self._refuses
        if self._warm is not None:
            await self._warm.wait()

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        for number in range(self._after):
            yield TextDelta(text=f"{number}\n\n")
        raise RuntimeError("secret dsn=postgres://")

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> None:
        return None

    def states(self) -> tuple[ModelState, ...]:
        return (ModelState(name=self.name),)

    async def close(self) -> None:
        self.closed = True


def app_with(model: StubModel) -> AgentApp:
    clock = SystemClock()
    agent = Agent(
        load_persona=PersonaSource("demo-solar", clock=clock).load,
        make_model=lambda _: model,
        clock=clock,
        max_replies=8,
    )
    return AgentApp(settings(), clock=clock, agent=agent)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_model_that_fails_says_so_and_nothing_else(after: int) -> None:
    async with serving(app_with(StubModel(after=after))) as stub:
        error = await refusal(lambda: respond(stub, begin("oi"), context()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_FAILED")
    assert "secret" not in error.message and error.metadata == {"model": "stub"}


async def test_health_tells_the_truth_while_the_model_warms_up() -> None:
    warm, model = asyncio.Event(), StubModel()
    model = StubModel(warm=warm)
    async with in_process(app_with(model)) as channel:
        stub, health = rpc.AgentServiceStub(channel), cast(Any, health_pb2_grpc.HealthStub(channel))
        check = health_pb2.HealthCheckRequest(service="agentic_sdr.agent.v1.AgentService")
        assert (await health.Check(check, timeout=TIMEOUT_S)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        agent = await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)
        assert agent.state == pb.AGENT_STATE_WARMING and agent.model == "stub"
        error = await refusal(lambda: respond(stub, begin("oi"), context()))
        assert (error.code, error.metadata) == (grpc.StatusCode.UNAVAILABLE, {"component": "model"})
        warm.set()
        async with asyncio.timeout(3):
            while (await health.Check(check, timeout=TIMEOUT_S)).status != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.02)
    assert model.closed


async def test_a_start_that_fails_closes_what_it_opened() -> None:
    """A server that failed to open is not closed by anybody else; its connections and tasks stayed behind."""
    model = StubModel(refuses=ConfigurationError("the key was refused"))
    with pytest.raises(ConfigurationError, match="the key was refused"):
        await app_with(model).open()
    assert model.closed


async def test_a_warm_up_that_never_ends_is_closed() -> None:
    model = StubModel(warm=asyncio.Event())
    async with in_process(app_with(model)):
        pass
    assert model.closed


@pytest.mark.parametrize("name", ["openai:gpt", "openai:", "gguf:", "other"])
def test_models_that_are_not_there_are_refused_at_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match="SDR_AGENT_MODEL"):
        AgentApp(settings(SDR_AGENT_MODEL=name))


async def test_a_persona_that_is_not_there_is_refused_at_start() -> None:
    with pytest.raises(ConfigurationError, match="SDR_PERSONA"):
        await AgentApp(settings(SDR_PERSONA="nobody")).open()


async def _until(stub: Any, *, active: int) -> None:
    while (await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)).active_replies != active:
        await asyncio.sleep(0.005)


def _letters(number: int) -> str:
    return chr(ord("a") + number // 26) + chr(ord("a") + number % 26) + "o"


async def test_words_that_call_for_a_human_hand_over_before_any_model_is_asked() -> None:
    """The playbook handed over at once; a language model was never told to."""
    async with serving(app_with(StubModel())) as stub:
        heard = await respond(stub, begin("quero investir numa usina"), context())
    assert [one.WhichOneof("effect") for one in heard.effects] == ["lead_update", "handoff"]
    assert heard.effects[1].handoff.reason == "investment plant" and heard.bubbles


async def test_a_persona_whose_files_are_refused_says_so(tmp_path: Path) -> None:
    """Whoever saved a mistake saw nothing change and `make status` say that all was well."""
    folder = copy_of_demo(tmp_path / "mine")
    async with serving(SDR_PERSONA=str(folder)) as stub:
        assert (await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)).persona_problem == ""
        (folder / "facts.yaml").write_text("facts: []\n", encoding="utf-8")
        async with asyncio.timeout(TIMEOUT_S):
            while not (answer := await stub.GetAgent(pb.GetAgentRequest(), timeout=TIMEOUT_S)).persona_problem:
                await asyncio.sleep(0.1)
    assert "facts.yaml, line 1: facts: " in answer.persona_problem and answer.persona_display_name == "Helen"
