"""The resident agent: warm before it serves, and without memory of any conversation."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from agent_service.chat import ModelTrouble
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
)
from agent_service.errors import ModelFailed
from agent_service.flush import coalesce
from agent_service.loop_guard import suspect
from agent_service.models import Model, ModelState, Summary, SummaryFailed, WarmStep
from agent_service.models.deadline import telling_s
from agent_service.persona import LoadedPersona, Persona
from agent_service.playbook.draft import Reply
from agent_service.playbook.going_on import rest_of
from agent_service.playbook.media import wordless_reply
from agent_service.playbook.triggers import triggered_reply
from agent_service.prompt import fixed_part
from service_kit import logs
from service_kit.clock import Clock
from service_kit.errors import Unavailable

_log = logs.get(__name__)
_RECENT = 100
T = TypeVar("T")


class AgentState(Enum):
    """Where the agent stands."""

    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The agent, for people."""

    state: AgentState
    model: str
    costs_money: bool
    persona: Persona | None
    persona_version: str
    warm_up_ms: int
    steps: tuple[WarmStep, ...]
    ready_ms: int
    replies: int
    active: int
    first_tokens_ms: tuple[int, ...]
    models: tuple[ModelState, ...]


class Agent:
    """One per process. All that it counts are replies; whatever belongs to a conversation comes with the turn."""

    def __init__(
        self,
        *,
        load_persona: Callable[[], LoadedPersona],
        make_model: Callable[[Persona], Model],
        clock: Clock,
        max_replies: int,
        loop_guard: bool = True,
    ) -> None:
        self._load_persona = load_persona
        self._make_model = make_model
        self._clock = clock
        self._max_replies = max_replies
        self._loop_guard = loop_guard
        self._state = AgentState.WARMING
        self._loaded: LoadedPersona | None = None
        self._model: Model | None = None
        self._started = clock.monotonic()
        self._steps: list[WarmStep] = []
        self._warm_up_ms = 0
        self._ready_ms = 0
        self._replies = 0
        self._active = 0
        self._first_tokens: deque[float] = deque(maxlen=_RECENT)

    @property
    def ready(self) -> bool:
        """Whether a reply can be made now, by the model or by one that stands in for it."""
        return self._state is AgentState.READY and self._model is not None and self._model.available

    async def warm_up(self) -> None:
        """Everything that the first lead must not wait for."""
        try:
            self._loaded = await self._step("persona_loaded", lambda: asyncio.to_thread(self._load_persona))
            persona = self._loaded.persona
            await self._step("prompt_prefix_built", lambda: _done(fixed_part(persona)))
            self._model = model = await self._step("model_made", lambda: _done(self._make_model(persona)))
            await self._step("model_opened", model.open)
            await self._step("model_warmed", model.warm)
        except BaseException:
            self._state = AgentState.FAILED
            raise
        self._warm_up_ms = round((self._clock.monotonic() - self._started) * 1000)
        self._ready_ms = self._clock.now_ms()
        self._state = AgentState.READY
        _log.info("agent_warmed", model=model.name, persona=persona.name, warm_up_ms=self._warm_up_ms)

    async def close(self) -> None:
        """Let the model go."""
        self._state = AgentState.FAILED
        if self._model is not None:
            await self._model.close()

    async def use(self, loaded: LoadedPersona) -> None:
        """Speak from this version from the next turn on. Errors: ConfigurationError, and nothing has changed."""
        if self._model is not None:
            await self._model.use(loaded.persona)
        self._loaded = loaded

    async def reply(self, turn: Turn, *, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """Write one reply, in frames that are worth sending, ended by `Ended`."""
        persona, model = self._serving()
        self._active += 1
        started = first = self._clock.monotonic()
        began = spoke = False
        events = coalesce(self._events(persona, model, turn, ends_at=ends_at), ends_at=ends_at)
        try:
            async for event in events:
                if isinstance(event, FirstToken):
                    first, began = self._clock.monotonic(), True
                elif isinstance(event, TextDelta) and not spoke:
                    spoke = True
                    self._first_tokens.append((first if began else self._clock.monotonic()) - started)
                yield event
            self._replies += 1
        finally:
            self._active -= 1
            await events.aclose()

    def _serving(self) -> tuple[Persona, Model]:
        # A model that can't serve is asked all the same: the turn finds out whether it is back.
        if self._loaded is None or self._model is None or self._state is not AgentState.READY:
            raise Unavailable("The agent is not warm yet.", component="model")
        if self._active >= self._max_replies:
            raise Unavailable("As many replies as allowed are under way.", component="replies", retry_after_ms=500)
        return self._loaded.persona, self._model

    async def _events(
        self, persona: Persona, model: Model, turn: Turn, *, ends_at: float
    ) -> AsyncGenerator[ModelEvent, None]:
        if self._loop_guard and (reason := suspect(turn)):
            _log.warning("loop_suspected", reason=reason, conversation_id=turn.conversation_id)
            for event in _left_to_people(reason, turn):
                yield event
            return
        reply = wordless_reply(persona, turn) or triggered_reply(persona, turn)
        if reply is not None:
            for event in _spoken(reply, turn):
                yield event
            return
        # The model ends before the caller's patience does, so that what it cost is still told.
        events = model.stream(turn, ends_at=ends_at - telling_s(ends_at))
        spoke = False
        try:
            async for event in events:
                spoke = spoke or isinstance(event, TextDelta | EffectCalled)
                yield event
        except ModelTrouble as trouble:
            _log.warning("model_failed", model=model.name, trouble=trouble.trouble.value, detail=str(trouble))
            raise ModelFailed(model=model.name) from None
        except Exception as error:
            _log.warning("model_failed", model=model.name, error=type(error).__name__, spoke=spoke, exc_info=True)
            raise ModelFailed(model=model.name) from error
        finally:
            await events.aclose()

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        """Condense older history; None when the model writes no summaries. Errors: Unavailable, ModelFailed."""
        _, model = self._serving()
        try:
            return await model.summarize(
                summary=summary, history=history, lead=lead, ends_at=ends_at - telling_s(ends_at)
            )
        except ModelTrouble as trouble:
            _log.warning("summary_failed", model=model.name, trouble=trouble.trouble.value, detail=str(trouble))
            spent = trouble.spent if isinstance(trouble, SummaryFailed) else None
            raise ModelFailed(model=model.name, spent=spent) from None

    def report(self) -> Report:
        """What `GetAgent` shows."""
        models = self._model.states() if self._model else ()
        served = self._state is not AgentState.READY or self.ready
        return Report(
            state=self._state if served else AgentState.FAILED,
            model=self._model.name if self._model else "",
            costs_money=self._model.costs_money if self._model else False,
            persona=self._loaded.persona if self._loaded else None,
            persona_version=self._loaded.version if self._loaded else "",
            warm_up_ms=self._warm_up_ms,
            steps=(*self._steps, *(step for model in models for step in model.steps)),
            ready_ms=self._ready_ms,
            replies=self._replies,
            active=self._active,
            first_tokens_ms=tuple(round(seconds * 1000) for seconds in self._first_tokens),
            models=models,
        )

    async def _step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        started = self._clock.monotonic()
        result = await work()
        self._steps.append(WarmStep(name=name, ms=round((self._clock.monotonic() - started) * 1000)))
        return result


async def _done(value: T) -> T:
    return value


def _left_to_people(reason: str, turn: Turn) -> list[ModelEvent]:
    handoff = HandOver(reason=f"the other side looks like a machine: {reason}")
    effects: list[ModelEvent] = [] if handoff in turn.said_effects else [EffectCalled(effect=handoff)]
    return [*effects, Ended(why=End.SILENT, fallback_reason="loop")]


def _spoken(reply: Reply, turn: Turn) -> list[ModelEvent]:
    bubbles = rest_of(reply.bubbles, turn.said) if turn.said else reply.bubbles
    effects = [EffectCalled(effect=effect) for effect in reply.effects if effect not in turn.said_effects]
    text: list[ModelEvent] = [TextDelta(text="\n\n".join(bubbles))] if bubbles else []
    return [*effects, *text, Ended(why=reply.end)]
