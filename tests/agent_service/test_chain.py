"""The failure policy over models under the test's thumb, on a clock that is moved by hand where time decides."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from agent_service.chat import ModelTrouble, Trouble
from agent_service.conversation import (
    EffectCalled,
    End,
    Ended,
    FirstToken,
    HandOver,
    Lead,
    Line,
    ModelEvent,
    TextDelta,
    Turn,
    UsageReported,
)
from agent_service.models import ModelState, Summary, SummaryFailed
from agent_service.models.chain import Chain
from agent_service.persona import Persona
from service_kit.clock import Clock, ManualClock, SystemClock
from service_kit.settings import ConfigurationError
from tests.agent_service.talking import demo, messages

SECONDS = 20.0
TURN = Turn(messages=messages("oi"), conversation_id="c-1")
SPENT = UsageReported(prompt=10, cached=4, completion=2, cost_micros=7)
GOOD = [FirstToken(), TextDelta(text="Oi!"), SPENT, Ended(why=End.STOP)]
Step = ModelEvent | Exception | float


@dataclass
class Scripted:
    """Plays one list of steps per call; a number is a sleep, an exception is raised. The last list is repeated."""

    name: str = "first"
    script: list[list[Step]] = field(default_factory=lambda: [list(GOOD)])
    warmings: list[Exception | None] = field(default_factory=list)
    refuses_persona: bool = False
    costs_money: bool = False
    available: bool = True
    hangs: bool = False
    gate: asyncio.Event | None = None
    asked: int = 0
    warmed: int = 0
    closed: int = 0
    under_way: int = 0
    personas: list[Persona] = field(default_factory=list)
    summary: Summary | Exception | None = None

    async def open(self) -> None:
        return

    async def warm(self) -> None:
        self.warmed += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.warmings and (error := self.warmings.pop(0)):
            raise error

    async def use(self, persona: Persona) -> None:
        if self.refuses_persona:
            raise ConfigurationError("too little room")
        self.personas.append(persona)

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        steps = self.script[min(self.asked, len(self.script) - 1)]
        self.asked += 1
        self.under_way += 1
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.under_way -= 1

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        if isinstance(self.summary, Exception):
            raise self.summary
        return self.summary

    def states(self) -> tuple[ModelState, ...]:
        return (ModelState(name=self.name),)

    async def close(self) -> None:
        self.closed += 1


def failing(trouble: Trouble, *before: Step, name: str = "first", retry_after_s: float | None = None) -> Scripted:
    return Scripted(name=name, script=[[*before, ModelTrouble(trouble, retry_after_s=retry_after_s)]])


def chain(*models: Scripted, clock: Clock | None = None) -> Chain:
    return Chain(models, persona=demo(), clock=clock or SystemClock())


async def played(made: Chain, turn: Turn = TURN, *, seconds: float = SECONDS) -> list[ModelEvent]:
    async with aclosing(made.stream(turn, ends_at=asyncio.get_running_loop().time() + seconds)) as events:
        return [event async for event in events]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def ended(events: list[ModelEvent]) -> Ended:
    end = events[-1]
    assert isinstance(end, Ended)
    return end


async def settled() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    yield ManualClock()


async def test_the_first_one_answers() -> None:
    first, second = Scripted(), Scripted(name="second")
    events = await played(chain(first, second))
    assert text_of(events) == "Oi!" and ended(events) == Ended(why=End.STOP, model="first")
    assert (first.asked, second.asked) == (1, 0)


@pytest.mark.parametrize(
    "trouble",
    [each for each in Trouble if each not in (Trouble.RATE_LIMITED, Trouble.SERVER_ERROR, Trouble.UNREACHABLE)],
)
async def test_what_a_second_call_would_not_mend_goes_to_the_next_model(trouble: Trouble) -> None:
    first, second = failing(trouble), Scripted(name="second")
    events = await played(chain(first, second))
    assert ended(events) == Ended(why=End.STOP, model="second", fallback_reason=trouble.value)
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("trouble", [Trouble.SERVER_ERROR, Trouble.UNREACHABLE, Trouble.RATE_LIMITED])
async def test_what_may_pass_is_tried_once_more(trouble: Trouble) -> None:
    first = Scripted(script=[[ModelTrouble(trouble, retry_after_s=0.01)], list(GOOD)])
    events = await played(chain(first, Scripted(name="second")))
    assert ended(events) == Ended(why=End.STOP, model="first") and first.asked == 2


@pytest.mark.parametrize("trouble", [Trouble.STALLED, Trouble.SERVER_ERROR, Trouble.RATE_LIMITED, Trouble.OUT_OF_TIME])
async def test_after_the_first_words_the_reply_ends_with_what_was_said(trouble: Trouble) -> None:
    first, second = failing(trouble, FirstToken(), TextDelta(text="Oi! ")), Scripted(name="second")
    events = await played(chain(first, second))
    assert text_of(events) == "Oi! " and ended(events) == Ended(why=End.LENGTH, model="first")
    assert (first.asked, second.asked) == (1, 0)


async def test_an_effect_that_went_out_counts_as_words() -> None:
    """The caller has it already: what another model adds would stand on somebody else's tool call."""
    first = failing(Trouble.BROKEN, EffectCalled(effect=HandOver(reason="pediu")))
    events = await played(chain(first, Scripted(name="second")))
    assert ended(events).why is End.LENGTH and ended(events).model == "first"


async def test_a_token_alone_does_not_bind_the_reply_to_its_model() -> None:
    events = await played(chain(failing(Trouble.STALLED, FirstToken()), Scripted(name="second")))
    assert ended(events).model == "second" and text_of(events) == "Oi!"


async def test_every_call_is_paid_for_and_reported_once() -> None:
    spent = UsageReported(prompt=100, cached=50, completion=20, cost_micros=30)
    first = failing(Trouble.UNFIT, FirstToken(), spent)
    events = await played(chain(first, Scripted(name="second")))
    usage = [event for event in events if isinstance(event, UsageReported)]
    assert usage == [UsageReported(prompt=110, cached=54, completion=22, cost_micros=37)]
    nobody = chain(first)
    seen: list[ModelEvent] = []
    ends_at = asyncio.get_running_loop().time() + SECONDS
    async with aclosing(nobody.stream(TURN, ends_at=ends_at)) as stream:
        with pytest.raises(ModelTrouble):
            async for event in stream:
                seen.append(event)
    assert spent in seen, "a turn that failed is paid for as well"


async def test_what_raises_something_else_is_a_failed_model() -> None:
    first = Scripted(script=[[RuntimeError("dsn=secret")]])
    events = await played(chain(first, Scripted(name="second")))
    assert ended(events) == Ended(why=End.STOP, model="second", fallback_reason="broken")


async def test_the_time_is_shared_with_those_that_come_after() -> None:
    first = Scripted(script=[[60.0]])
    second = Scripted(name="second", script=[[60.0]])
    last = Scripted(name="last")
    events = await played(chain(first, second, last), seconds=1.5)
    assert ended(events) == Ended(why=End.STOP, model="last", fallback_reason="no_first_token")
    assert (first.under_way, second.under_way) == (0, 0)


async def test_closing_closes_the_model() -> None:
    first = Scripted(script=[[TextDelta(text="a"), 60.0]])
    async with aclosing(chain(first).stream(TURN, ends_at=asyncio.get_running_loop().time() + 60)) as events:
        async for _ in events:
            break
    assert first.under_way == 0


@pytest.mark.parametrize("under_way", [1, 100])
async def test_one_rate_limit_is_not_every_turn_s_fallback(clock: ManualClock, under_way: int) -> None:
    """A hundred turns within one limit, of which some had called already: all wait for the brake, none asks meanwhile,
    and none falls back."""
    refused: list[Step] = [0, ModelTrouble(Trouble.RATE_LIMITED, retry_after_s=3.0)]
    first = Scripted(script=[*([refused] * under_way), list(GOOD)])
    made = chain(first, Scripted(name="second"), clock=clock)
    turns = [asyncio.create_task(played(made)) for _ in range(under_way)]
    await settled()
    turns += [asyncio.create_task(played(made)) for _ in range(100 - under_way)]
    for _ in range(2):
        await settled()
        assert first.asked == under_way and not any(turn.done() for turn in turns)
        clock.advance(1_000)
    clock.advance(1_000)
    ends = [ended(await turn) for turn in turns]
    assert {end.model for end in ends} == {"first"} and first.asked == 100 + under_way


async def test_the_others_go_on_with_the_first_token_not_with_the_last(clock: ManualClock) -> None:
    refused = [ModelTrouble(Trouble.RATE_LIMITED, retry_after_s=1.0)]
    first = Scripted(script=[refused, [FirstToken(), 0.2, *GOOD], list(GOOD)])
    made = chain(first, clock=clock)
    going_first = asyncio.create_task(played(made))
    await settled()
    waiting = asyncio.create_task(played(made))
    await settled()
    clock.advance(1_000)
    await until(clock, waiting.done)
    assert not going_first.done() and ended(await waiting).model == "first"
    await going_first


async def test_a_rate_limit_that_outlasts_the_turn_goes_to_the_next_model_without_a_call(clock: ManualClock) -> None:
    first, second = failing(Trouble.RATE_LIMITED, retry_after_s=45.0), Scripted(name="second")
    made = chain(first, second, clock=clock)
    for _ in range(20):
        assert ended(await played(made)) == Ended(why=End.STOP, model="second", fallback_reason="rate_limited")
    assert first.asked == 1
    [state, _] = made.states()
    assert state.available and state.trouble == "rate_limited" and state.braked_until_ms == clock.now_ms() + 45_000


async def test_a_dead_server_is_left_alone_and_comes_back_by_itself(clock: ManualClock) -> None:
    first, second = failing(Trouble.UNREACHABLE), Scripted(name="second")
    first.warmings = [ModelTrouble(Trouble.UNREACHABLE), ModelTrouble(Trouble.UNREACHABLE)]
    made = chain(first, second, clock=clock)
    turn = asyncio.create_task(played(made))
    await until(clock, lambda: clock.sleepers == 1)
    clock.advance(300)
    assert ended(await turn).model == "second"
    asked = first.asked
    for _ in range(20):
        end = ended(await played(made))
        assert (end.model, end.fallback_reason) == ("second", "unreachable")
    assert first.asked == asked, "nobody waits for a server that is known to be dead"
    assert [state.available for state in made.states()] == [False, True]
    first.script = [list(GOOD)]
    for pause_s in (1, 2, 4):
        await until(clock, lambda: clock.sleepers == 1)
        clock.advance(pause_s * 1_000)
        await settled()
    assert first.warmed == 3 and ended(await played(made)) == Ended(why=End.STOP, model="first")
    await made.close()


async def test_an_outage_is_not_doubled_by_retries(clock: ManualClock) -> None:
    """Promises I13: at most a tenth more calls than turns."""
    made = chain(failing(Trouble.SERVER_ERROR), clock=clock)
    [link] = made._links
    link.rest = lambda trouble: None  # type: ignore[method-assign]
    for _ in range(300):
        task = asyncio.create_task(played(made))
        while not task.done():
            await settled()
            clock.advance(300)
        assert isinstance(task.exception(), ModelTrouble)
    assert link.model.asked <= 300 * 1.1 + 10  # type: ignore[attr-defined]
    await made.close()


async def test_when_nobody_is_worth_asking_all_are_asked(clock: ManualClock) -> None:
    first = failing(Trouble.REFUSED)
    made = chain(first, clock=clock)
    for _ in range(4):
        with pytest.raises(ModelTrouble):
            await played(made)
    assert not made.available and first.asked == 4
    first.script = [list(GOOD)]
    assert ended(await played(made)).model == "first" and made.available
    await made.close()


async def test_a_model_that_can_not_be_reached_at_the_start_rests(clock: ManualClock) -> None:
    first, second = Scripted(warmings=[ModelTrouble(Trouble.UNREACHABLE)]), Scripted(name="second")
    made = chain(first, second, clock=clock)
    await made.warm()
    assert made.available and [state.available for state in made.states()] == [False, True]
    assert ended(await played(made)) == Ended(why=End.STOP, model="second", fallback_reason="unreachable")
    await until(clock, lambda: clock.sleepers == 1)
    clock.advance(1_000)
    await settled()
    assert ended(await played(made)).model == "first"
    await made.close()
    assert first.closed == second.closed == 1


async def test_a_model_that_hangs_at_the_start_is_not_waited_for_when_another_can_serve() -> None:
    """A server that took the connection and said nothing kept the whole agent from serving for 25 s."""
    first, second = Scripted(hangs=True, gate=asyncio.Event()), Scripted(name="second")
    made = chain(first, second)
    async with asyncio.timeout(SECONDS):
        await made.warm()
    assert made.available
    assert [(state.available, state.trouble) for state in made.states()] == [(False, "warming"), (True, "")]
    assert ended(await played(made)) == Ended(why=End.STOP, model="second", fallback_reason="warming")
    assert first.gate is not None
    first.gate.set()
    await settled()
    assert ended(await played(made)) == Ended(why=End.STOP, model="first") and first.warmed == 1
    await made.close()


@pytest.mark.parametrize("error", [ModelTrouble(Trouble.NO_FIRST_TOKEN), ConfigurationError("wrong key")])
async def test_a_warm_up_that_fails_late_stops_nothing_and_is_repeated(clock: ManualClock, error: Exception) -> None:
    first = Scripted(hangs=True, gate=asyncio.Event(), warmings=[error])
    made = chain(first, Scripted(name="second"), clock=clock)
    await made.warm()
    assert first.gate is not None
    first.gate.set()
    await until(clock, lambda: clock.sleepers == 1)
    assert made.available and made.states()[0].trouble in ("no_first_token", "refused")
    clock.advance(1_000)
    await settled()
    assert first.warmed == 2 and ended(await played(made)).model == "first"
    await made.close()


@pytest.mark.parametrize("others", [(), (ModelTrouble(Trouble.UNREACHABLE),)], ids=["alone", "the other is dead"])
async def test_a_model_that_hangs_is_waited_for_when_nobody_else_can_serve(others: tuple[Exception, ...]) -> None:
    first = Scripted(hangs=True, gate=asyncio.Event())
    made = chain(first, *(Scripted(name="second", warmings=[error] * 9) for error in others))
    warming = asyncio.create_task(made.warm())
    await asyncio.sleep(0.3)
    assert not warming.done() and first.gate is not None
    first.gate.set()
    await warming
    assert made.available
    await made.close()


async def test_a_model_that_takes_long_and_does_not_hang_is_warm_before_anybody_is_served() -> None:
    """Weights that are loaded and read in this process take their seconds, and are worth them."""
    first = Scripted(gate=asyncio.Event())
    made = chain(first, Scripted(name="second"))
    warming = asyncio.create_task(made.warm())
    await asyncio.sleep(0.3)
    assert not warming.done() and first.gate is not None
    first.gate.set()
    await warming
    assert ended(await played(made)).model == "first"


async def test_a_chain_that_is_closed_lets_go_of_a_warm_up_that_hangs() -> None:
    made = chain(Scripted(hangs=True, gate=asyncio.Event()), Scripted(name="second"))
    await made.warm()
    await made.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("warm-", "probe-"))]


async def test_a_wrong_configuration_of_any_model_does_not_start() -> None:
    first, second = Scripted(), Scripted(name="second", warmings=[ConfigurationError("wrong key")])
    with pytest.raises(ConfigurationError, match="wrong key"):
        await chain(first, second).warm()


async def test_a_persona_that_one_model_has_no_room_for_changes_none() -> None:
    first, second = Scripted(), Scripted(name="second", refuses_persona=True)
    other = demo().model_copy(update={"voice": "other"})
    with pytest.raises(ConfigurationError):
        await chain(first, second).use(other)
    assert first.personas == [other, demo()]


async def test_summaries_come_from_the_first_model_that_writes_them() -> None:
    made_summary = Summary(text="Quer reduzir a conta.", through_sequence=9)
    ask = {"summary": "", "history": (), "lead": Lead(), "ends_at": 1e9}
    broken = Scripted(summary=ModelTrouble(Trouble.EMPTY))
    assert await chain(broken, Scripted(summary=made_summary)).summarize(**ask) == made_summary  # type: ignore[arg-type]
    assert await chain(Scripted(), Scripted()).summarize(**ask) is None  # type: ignore[arg-type]
    with pytest.raises(ModelTrouble):
        await chain(broken, Scripted()).summarize(**ask)  # type: ignore[arg-type]


async def test_a_server_that_failed_at_summaries_comes_back_by_itself(clock: ManualClock) -> None:
    """Two summaries that could not reach it put it to rest, nobody probed it, and the playbook answered for good."""
    first = Scripted(summary=ModelTrouble(Trouble.UNREACHABLE))
    made = chain(first, Scripted(name="second"), clock=clock)
    for _ in range(2):
        with pytest.raises(ModelTrouble):
            await made.summarize(summary="", history=(), lead=Lead(), ends_at=1e9)
    assert not made.states()[0].available
    await until(clock, lambda: clock.sleepers == 1)
    clock.advance(1_000)
    await settled()
    assert ended(await played(made)).model == "first"
    await made.close()


async def test_summaries_that_failed_are_paid_for_with_the_one_that_did_not() -> None:
    ask = {"summary": "", "history": (), "lead": Lead(), "ends_at": 1e9}
    failed = Scripted(summary=SummaryFailed(ModelTrouble(Trouble.UNFIT), SPENT))
    good = Scripted(summary=Summary(text="Quer reduzir.", through_sequence=9, prompt_tokens=100, cost_micros=3))
    made = await chain(failed, good).summarize(**ask)  # type: ignore[arg-type]
    assert made is not None
    assert (made.prompt_tokens, made.cached_tokens, made.completion_tokens, made.cost_micros) == (110, 4, 2, 10)
    with pytest.raises(SummaryFailed) as caught:
        await chain(failed, failed, Scripted()).summarize(**ask)  # type: ignore[arg-type]
    assert caught.value.spent == UsageReported(prompt=20, cached=8, completion=4, cost_micros=14)


async def until(clock: ManualClock, met: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not met():
            await asyncio.sleep(0.005)
