"""The resident agent: warm before it serves, and without memory of any conversation."""

import asyncio
import statistics
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from agent_service.conversation import EffectCalled, Ended, ModelEvent, TextDelta, Turn
from agent_service.errors import ModelFailed
from agent_service.flush import coalesce
from agent_service.models import Model
from agent_service.persona import Persona
from agent_service.playbook.draft import Reply
from agent_service.playbook.going_on import rest_of
from agent_service.playbook.media import wordless_reply
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
class Step:
    """One step of the warm-up."""

    name: str
    ms: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The agent, for people."""

    state: AgentState
    model: str
    costs_money: bool
    persona: Persona | None
    warm_up_ms: int
    steps: tuple[Step, ...]
    ready_ms: int
    replies: int
    active: int
    first_token_p50_ms: int


class Agent:
    """One per process. All that it counts are replies; whatever belongs to a conversation comes with the turn."""

    def __init__(
        self,
        *,
        load_persona: Callable[[], Persona],
        make_model: Callable[[Persona], Model],
        clock: Clock,
        max_replies: int,
    ) -> None:
        self._load_persona = load_persona
        self._make_model = make_model
        self._clock = clock
        self._max_replies = max_replies
        self._state = AgentState.WARMING
        self._persona: Persona | None = None
        self._model: Model | None = None
        self._started = clock.monotonic()
        self._steps: list[Step] = []
        self._warm_up_ms = 0
        self._ready_ms = 0
        self._replies = 0
        self._active = 0
        self._first_tokens: deque[float] = deque(maxlen=_RECENT)

    @property
    def ready(self) -> bool:
        """Whether a reply can be made now."""
        return self._state is AgentState.READY

    async def warm_up(self) -> None:
        """Everything that the first lead must not wait for."""
        try:
            self._persona = persona = await self._step("persona_loaded", lambda: asyncio.to_thread(self._load_persona))
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

    async def reply(self, turn: Turn, *, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """Write one reply, in frames that are worth sending, ended by `Ended`."""
        persona, model = self._serving()
        self._active += 1
        started = self._clock.monotonic()
        spoke = False
        events = coalesce(self._events(persona, model, turn, ends_at=ends_at), ends_at=ends_at)
        try:
            async for event in events:
                if isinstance(event, TextDelta) and not spoke:
                    spoke = True
                    self._first_tokens.append(self._clock.monotonic() - started)
                yield event
            self._replies += 1
        finally:
            self._active -= 1
            await events.aclose()

    def _serving(self) -> tuple[Persona, Model]:
        if self._persona is None or self._model is None or not self.ready:
            raise Unavailable("The agent is not warm yet.", component="model")
        if self._active >= self._max_replies:
            raise Unavailable("As many replies as allowed are under way.", component="replies", retry_after_ms=500)
        return self._persona, self._model

    async def _events(
        self, persona: Persona, model: Model, turn: Turn, *, ends_at: float
    ) -> AsyncGenerator[ModelEvent, None]:
        wordless = wordless_reply(persona, turn)
        if wordless is not None:
            for event in _spoken(wordless, turn):
                yield event
            return
        events = model.stream(turn, ends_at=ends_at)
        spoke = False
        try:
            async for event in events:
                spoke = spoke or isinstance(event, TextDelta | EffectCalled)
                yield event
        except Exception as error:
            _log.warning("model_failed", model=model.name, error=type(error).__name__, spoke=spoke, exc_info=True)
            raise ModelFailed(model=model.name) from error
        finally:
            await events.aclose()

    def report(self) -> Report:
        """What `GetAgent` shows."""
        tokens = self._first_tokens
        return Report(
            state=self._state,
            model=self._model.name if self._model else "",
            costs_money=self._model.costs_money if self._model else False,
            persona=self._persona,
            warm_up_ms=self._warm_up_ms,
            steps=tuple(self._steps),
            ready_ms=self._ready_ms,
            replies=self._replies,
            active=self._active,
            first_token_p50_ms=round(statistics.median(tokens) * 1000) if tokens else 0,
        )

    async def _step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        started = self._clock.monotonic()
        result = await work()
        self._steps.append(Step(name=name, ms=round((self._clock.monotonic() - started) * 1000)))
        return result


async def _done(value: T) -> T:
    return value


def _spoken(reply: Reply, turn: Turn) -> list[ModelEvent]:
    bubbles = rest_of(reply.bubbles, turn.said) if turn.said else reply.bubbles
    text: list[ModelEvent] = [TextDelta(text="\n\n".join(bubbles))] if bubbles else []
    return [*text, Ended(why=reply.end)]
