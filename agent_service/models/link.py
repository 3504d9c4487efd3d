"""One model of the chain: its brake, its one retry, and whether it is worth asking at all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from agent_service.chat import ModelTrouble, Trouble
from agent_service.conversation import EffectCalled, FirstToken, Lead, Line, ModelEvent, TextDelta, Turn
from agent_service.models import Model, ModelState, Summary
from agent_service.models.brake import Brake, Pass, RetryBudget
from agent_service.models.deadline import Deadline, telling_s
from agent_service.models.playbook import Playbook
from service_kit import logs
from service_kit.clock import Clock

# Worth a second call to the same model, as a rate limit is, when nothing was said yet.
_AGAIN = frozenset({Trouble.SERVER_ERROR, Trouble.UNREACHABLE})
# Faults of the server, not of what it wrote this time.
_SERVER = frozenset(
    {
        Trouble.UNREACHABLE,
        Trouble.SERVER_ERROR,
        Trouble.REFUSED,
        Trouble.NO_FIRST_TOKEN,
        Trouble.STALLED,
        Trouble.BROKEN,
    }
)
_REST_AFTER = 3
_REST_AFTER_UNREACHABLE = 2
_PAUSE_S = 0.25
# A call that would have less time than this is not begun.
_LEAST_S = 0.5
_log = logs.get(__name__)


class Link:
    """Asks one model, and remembers how it went.

    `resting`: it failed again and again, and is probed instead. `quick`: it needs next to no time.
    """

    def __init__(self, model: Model, clock: Clock) -> None:
        self.model = model
        self.quick = isinstance(model, Playbook)
        self.resting = False
        self.trouble = ""
        self._clock = clock
        self._brake = Brake(clock)
        self._retries = RetryBudget()
        self._failures = 0

    async def stream(self, turn: Turn, *, by: float, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """The model's events. What is not begun by then (the loop's time) is a failure. Errors: ModelTrouble."""
        self._retries.called()
        again = True
        while True:
            leave = await self._passed(by)
            spoke = False
            try:
                async with aclosing(self._begun(turn, by=by, ends_at=ends_at)) as events:
                    async for event in events:
                        if isinstance(event, FirstToken):
                            self._brake.got_through()
                        spoke = spoke or isinstance(event, TextDelta | EffectCalled)
                        yield event
                self.worked()
                return
            except ModelTrouble as trouble:
                self._failed(trouble)
                if spoke or not again or not await self._worth_another(trouble, by=by):
                    raise
                again = False
            finally:
                self._brake.end(leave)

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        """The model's summary; never at the expense of leads who wait for the brake. Errors: ModelTrouble."""
        if self.resting or self._brake.left_s:
            raise ModelTrouble(Trouble.UNREACHABLE if self.resting else Trouble.RATE_LIMITED, "not asked")
        try:
            return await self.model.summarize(summary=summary, history=history, lead=lead, ends_at=ends_at)
        except ModelTrouble as trouble:
            self._failed(trouble)
            raise

    def worked(self) -> None:
        """It answered; whatever was wrong is over."""
        if self.resting:
            _log.info("model_recovered", model=self.model.name)
        self._brake.got_through()
        self._failures, self.resting, self.trouble = 0, False, ""

    def rest(self, trouble: str) -> None:
        """Don't ask it any more until a probe got through."""
        self.trouble, self.resting = trouble, True
        _log.warning("model_rests", model=self.model.name, trouble=trouble)

    def state(self) -> ModelState:
        """For people."""
        [state] = self.model.states()
        left_ms = round(self._brake.left_s * 1000)
        return replace(
            state,
            available=state.available and not self.resting,
            trouble=self.trouble or state.trouble,
            braked_until_ms=self._clock.now_ms() + left_ms if left_ms else 0,
        )

    async def _passed(self, by: float) -> Pass:
        left_s = by - _now() - _LEAST_S
        leave = await self._brake.passed(by=self._clock.monotonic() + left_s)
        if leave is None:
            raise ModelTrouble(Trouble.RATE_LIMITED, "the brake is on for longer than there is time")
        return leave

    async def _begun(self, turn: Turn, *, by: float, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """The model's events, the first words or effects by then; what is no ModelTrouble becomes one."""
        begun = False
        # The model keeps the time itself, so that it can tell what it cost; here it is cut off when it does not.
        telling = telling_s(by)
        model_by, by = (by - telling, by) if by < ends_at else (ends_at, ends_at + telling)
        async with aclosing(self.model.stream(turn, by=model_by, ends_at=ends_at)) as events:
            while True:
                try:
                    if begun:
                        event = await anext(events, None)
                    else:
                        async with Deadline(by, ends_at, Trouble.NO_FIRST_TOKEN):
                            event = await anext(events, None)
                except (ModelTrouble, asyncio.CancelledError):
                    raise
                except Exception as error:
                    _log.error("model_raised", model=self.model.name, error=type(error).__name__, exc_info=True)
                    raise ModelTrouble(Trouble.BROKEN, type(error).__name__) from None
                if event is None:
                    return
                begun = begun or isinstance(event, TextDelta | EffectCalled)
                yield event

    async def _worth_another(self, trouble: ModelTrouble, *, by: float) -> bool:
        if trouble.trouble is Trouble.RATE_LIMITED:
            return True  # The brake says how long to wait, and keeps a hundred such turns from being a storm.
        if trouble.trouble not in _AGAIN or self.resting or not self._retries.take():
            return False
        pause_s = _PAUSE_S if trouble.retry_after_s is None else trouble.retry_after_s
        if _now() + pause_s + _LEAST_S > by:
            return False
        await self._clock.sleep(pause_s)
        return True

    def _failed(self, trouble: ModelTrouble) -> None:
        kind = trouble.trouble
        self.trouble = kind.value
        _log.warning("model_call_failed", model=self.model.name, trouble=kind.value, detail=str(trouble))
        if kind is Trouble.RATE_LIMITED:
            self._brake.refused(trouble.retry_after_s)
        if kind in _SERVER:
            self._failures += 1
            if self._failures >= (_REST_AFTER_UNREACHABLE if kind is Trouble.UNREACHABLE else _REST_AFTER):
                self.rest(kind.value)


def _now() -> float:
    return asyncio.get_running_loop().time()
