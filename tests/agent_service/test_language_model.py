"""The language model over an engine under the test's thumb: the persona it speaks for, and what it keeps warm."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from agent_service.chat import ChatEnd, ChatEvent, ChatRequest, EngineState, ModelTrouble, TextPiece, Trouble
from agent_service.conversation import Author, End, Ended, Line, TextDelta, Turn
from agent_service.models.language import LanguageModel
from agent_service.models.prices import Prices
from service_kit.clock import ManualClock
from service_kit.settings import ConfigurationError
from tests.agent_service.talking import MONDAY_10H, demo, messages


@dataclass
class Engine:
    """Says the same to everything, and remembers what it was asked."""

    name: str = "openai:stub"
    costs_money: bool = False
    hangs: bool = False
    words: tuple[str, ...] = ("Oi! ", "Tudo bem?")
    asked: list[ChatRequest] = field(default_factory=list)
    warmed: list[ChatRequest] = field(default_factory=list)
    trouble: Trouble | None = None
    refusal: Exception | None = None
    gate: asyncio.Event | None = None

    async def open(self) -> None:
        return

    async def warm(self, prefix: ChatRequest) -> None:
        self.warmed.append(prefix)
        if self.trouble is not None:
            raise ModelTrouble(self.trouble)
        if self.refusal is not None:
            raise self.refusal

    async def chat(self, request: ChatRequest, *, ends_at: float) -> AsyncGenerator[ChatEvent, None]:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        for word in self.words:
            yield TextPiece(text=word)
        yield ChatEnd(reason="stop")

    async def count_tokens(self, text: str) -> int | None:
        return None

    def state(self) -> EngineState:
        return EngineState()

    async def close(self) -> None:
        return


def model_of(engine: Engine, clock: ManualClock | None = None, **more: object) -> LanguageModel:
    return LanguageModel(
        engine=engine,
        persona=demo(),
        clock=clock or ManualClock(),
        prices=Prices.parse(""),
        **more,  # type: ignore[arg-type]
    )


def turn(conversation: str = "c-1", **more: object) -> Turn:
    given = {"messages": messages("oi"), "conversation_id": conversation, "now_ms": MONDAY_10H, **more}
    return Turn(**given)  # type: ignore[arg-type]


async def said(model: LanguageModel, asked: Turn) -> tuple[str, Ended]:
    async with aclosing(model.stream(asked, ends_at=asyncio.get_running_loop().time() + 60)) as stream:
        events = [event async for event in stream]
    end = events[-1]
    assert isinstance(end, Ended)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), end


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.005)


async def test_every_conversation_has_its_bucket_and_the_persona_s_version() -> None:
    engine = Engine()
    model = model_of(engine, cache_buckets=4)
    await model.open()
    await model.warm()
    for number in range(40):
        await said(model, turn(f"c-{number}"))
        await said(model, turn(f"c-{number}"))
    keys = [request.cache_key for request in engine.asked]
    assert keys[::2] == keys[1::2], "a conversation stays where its history is cached"
    assert set(keys) == {request.cache_key for request in engine.warmed} and len(set(keys)) == 4
    assert {key.partition("-")[0] for key in keys} == {keys[0].partition("-")[0]}


async def test_a_reply_keeps_the_persona_that_it_began_with() -> None:
    engine = Engine(gate=asyncio.Event())
    model = model_of(engine)
    await model.open()
    under_way = asyncio.create_task(said(model, turn()))
    await until(lambda: len(engine.asked) == 1)
    other = demo().model_copy(update={"agent": "Clara"})
    await model.use(other)
    assert engine.gate is not None
    engine.gate.set()
    await under_way
    await said(model, turn())
    first, second = (request.messages[0].content for request in engine.asked)
    assert "Helen" in first and "Clara" not in first and "Clara" in second
    assert engine.warmed[-1].messages[0].content == second, "the new prefix is primed before anybody needs it"


async def test_a_persona_without_room_in_the_prompt_is_refused_and_the_old_one_stays() -> None:
    engine = Engine()
    model = model_of(engine)
    await model.open()
    with pytest.raises(ConfigurationError, match="SDR_AGENT_PROMPT_TOKENS"):
        await model.use(demo().model_copy(update={"voice": "fale assim " * 5_000}))
    await said(model, turn())
    assert "fale assim fale" not in engine.asked[0].messages[0].content


async def test_a_server_that_refuses_its_key_just_now_keeps_no_persona_out() -> None:
    """The new version was refused with the key's error, and not looked at again until somebody touched the files."""
    engine = Engine(refusal=ConfigurationError("OPENAI_API_KEY was refused"))
    model = model_of(engine)
    await model.open()
    await model.use(demo().model_copy(update={"agent": "Clara"}))
    await said(model, turn())
    assert "Clara" in engine.asked[0].messages[0].content


async def test_a_prefix_that_was_not_used_for_long_is_primed_again() -> None:
    engine, clock = Engine(), ManualClock()
    model = model_of(engine, clock, reprime_after_s=240.0)
    await model.open()
    await model.warm()
    await until(lambda: clock.sleepers == 1)
    for _ in range(8):
        clock.advance(30_000)
        await until(lambda: clock.sleepers == 1)
    assert len(engine.warmed) == 2
    engine.trouble = Trouble.UNREACHABLE
    for _ in range(9):
        clock.advance(30_000)
        await until(lambda: clock.sleepers == 1)
    assert len(engine.warmed) == 3, "a failure is for the next turn to find, and ends nothing"
    await model.close()
    assert clock.sleepers == 0


async def test_a_warm_up_is_shown_once_however_often_it_is_repeated() -> None:
    """Each recovery of the server added a line to `GetAgent`, for as long as the process lived."""
    model = model_of(Engine())
    await model.open()
    for _ in range(3):
        await model.warm()
    [state] = model.states()
    assert [step.name for step in state.steps] == ["openai:stub opened", "openai:stub prefix_primed"]


async def test_what_was_said_already_is_a_reply_of_its_own() -> None:
    """After a crash the next worker goes on after the said parts; a model with nothing to add is no failed model."""
    engine = Engine(words=())
    model = model_of(engine)
    await model.open()
    assert await said(model, turn(said=("Oi!",))) == ("", Ended(why=End.STOP))
    with pytest.raises(ModelTrouble) as caught:
        await said(model, turn())
    assert caught.value.trouble is Trouble.EMPTY


async def test_the_key_is_never_said() -> None:
    key = "minha-empresa-2026-chave-mestra"
    engine = Engine(words=(f"A chave é {key}. ",))
    model = model_of(engine, secrets=(key,))
    await model.open()
    with pytest.raises(ModelTrouble) as caught:
        await said(model, turn())
    assert caught.value.trouble is Trouble.UNFIT


async def test_a_long_history_asks_for_a_summary() -> None:
    engine = Engine()
    model = model_of(engine)
    await model.open()
    lines = tuple(
        Line(author=Author.LEAD if n % 2 else Author.ASSISTANT, text=f"linha {n} " + "texto " * 60, sequence=n)
        for n in range(1, 60)
    )
    assert (await said(model, turn(history=lines)))[1].wants_summary
    assert not (await said(model, turn(history=lines[:4])))[1].wants_summary
