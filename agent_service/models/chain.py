"""The failure policy: who is asked, in which order, for how long, and what becomes of a reply that breaks off.

The table in agent_service/README.md says what a lead sees of each fault; tests/agent_service/test_failure_table.py
holds the table to it.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from agent_service.chat import ModelTrouble, Trouble
from agent_service.conversation import (
    EffectCalled,
    End,
    Ended,
    Lead,
    Line,
    ModelEvent,
    TextDelta,
    Turn,
    UsageReported,
)
from agent_service.models import Model, ModelState, Summary, SummaryFailed
from agent_service.models.budgets import Budgets, limit_reply
from agent_service.models.link import Link
from agent_service.persona import Persona
from service_kit import logs
from service_kit.clock import Clock
from service_kit.settings import ConfigurationError

# What the playbook needs at the end of a turn that every model before it used up.
_PLAYBOOK_S = 1.0
_PROBE_FIRST_S = 1.0
_PROBE_MAX_S = 30.0
# How often a warm-up that goes on is looked at.
_LOOK_S = 0.1
# Of a model whose server says nothing while it is warmed.
WARMING = "warming"
_log = logs.get(__name__)


class Chain:
    """Models in the order in which they are asked. The first is the one that was chosen, the last usually the playbook.

    Before the first words another model can take over, and the lead notices nothing but the time. After them the reply
    ends with what was said.
    """

    def __init__(
        self, models: Sequence[Model], *, persona: Persona, clock: Clock, budgets: Budgets | None = None
    ) -> None:
        self._links = tuple(Link(model, clock) for model in models)
        self._persona = persona
        self._clock = clock
        self._budgets = budgets or Budgets()
        self._probes: set[asyncio.Task[None]] = set()
        self._probed: set[Link] = set()

    @property
    def name(self) -> str:
        return self._links[0].model.name

    @property
    def costs_money(self) -> bool:
        return any(link.model.costs_money for link in self._links)

    @property
    def available(self) -> bool:
        return any(not link.resting for link in self._links)

    @property
    def hangs(self) -> bool:
        return all(link.model.hangs for link in self._links)

    async def open(self) -> None:
        """Open all at once. Errors: ConfigurationError."""
        opening = [asyncio.create_task(link.model.open(), name=f"open-{link.model.name}") for link in self._links]
        try:
            await asyncio.gather(*opening)
        finally:
            await _cancelled(opening)

    async def warm(self) -> None:
        """Warm all at once. One that can't be reached, or hangs while another can serve, rests until it is warm.

        Errors: ConfigurationError.
        """
        warming = {link: asyncio.create_task(self._warm(link), name=f"warm-{link.model.name}") for link in self._links}
        try:
            while waited := self._waited_for(warming):
                await asyncio.wait(waited, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await _cancelled(warming.values())
            raise
        for link, task in warming.items():
            if not task.done():
                link.rest(WARMING)
                self._probe_if_resting(link, warming=task)

    async def use(self, persona: Persona) -> None:
        """Speak from this version from the next turn on. Errors: ConfigurationError."""
        taken: list[Link] = []
        try:
            for link in self._links:
                await link.model.use(persona)
                taken.append(link)
        except ConfigurationError:
            # Of two models, only one of which has room for it, none may speak from it.
            for link in taken:
                await link.model.use(self._persona)
            raise
        self._persona = persona

    async def stream(self, turn: Turn, *, ends_at: float, by: float = math.inf) -> AsyncGenerator[ModelEvent, None]:
        if self._budgets.exceeded(turn):
            _log.warning("budget_used_up", conversation_id=turn.conversation_id, tenant=turn.tenant)
            for event in limit_reply(self._persona, turn):
                yield event
            return
        spent, trouble = _Spent(), ModelTrouble(Trouble.UNREACHABLE, "no model can be asked")
        asked = self._asked()
        why = "" if asked[0] is self._links[0] else self._links[0].trouble
        for number, link in enumerate(asked):
            spoke, ended = False, Ended(why=End.STOP)
            first_by = min(by, _by(ends_at, after=asked[number + 1 :]))
            try:
                async with aclosing(link.stream(turn, by=first_by, ends_at=ends_at)) as events:
                    async for event in events:
                        if isinstance(event, UsageReported):
                            spent.add(event)
                        elif isinstance(event, Ended):
                            ended = event
                        else:
                            spoke = spoke or isinstance(event, TextDelta | EffectCalled)
                            yield event
            except ModelTrouble as failed:
                trouble = failed
                if not spoke:
                    why = why or trouble.trouble.value
                    continue
                _log.warning("reply_broke_off", model=link.model.name, trouble=trouble.trouble.value)
                ended = Ended(why=End.LENGTH)
            finally:
                self._probe_if_resting(link)
            for event in spent.reported():
                yield event
            yield replace(ended, model=link.model.name, fallback_reason=ended.fallback_reason or why)
            return
        for event in spent.reported():
            yield event
        raise trouble

    async def summarize(self, *, summary: str, history: tuple[Line, ...], lead: Lead, ends_at: float) -> Summary | None:
        """By the first model that writes summaries and can be asked. Errors: ModelTrouble of the last that was."""
        spent, trouble = _Spent(), None
        for link in self._links:
            try:
                made = await link.summarize(summary=summary, history=history, lead=lead, ends_at=ends_at)
            except ModelTrouble as failed:
                trouble = failed
                if isinstance(failed, SummaryFailed):
                    spent.add(failed.spent)
                self._probe_if_resting(link)
                continue
            if made is not None:
                return spent.added_to(made)
        if trouble is None:
            return None
        if paid := spent.reported():
            raise SummaryFailed(trouble, *paid) from None
        raise trouble

    def states(self) -> tuple[ModelState, ...]:
        return tuple(link.state() for link in self._links)

    async def close(self) -> None:
        await _cancelled(tuple(self._probes))
        for link in reversed(self._links):
            await link.model.close()

    def _asked(self) -> Sequence[Link]:
        """Those that are worth asking; all of them when none is, for then the turn is a probe like another."""
        return [link for link in self._links if not link.resting] or self._links

    def _waited_for(self, warming: Mapping[Link, asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """Whose warm-up goes on and is worth waiting for. Errors: ConfigurationError, of one that is done."""
        for task in warming.values():
            if task.done():
                task.result()
        served = any(task.done() and not link.resting for link, task in warming.items())
        return [task for link, task in warming.items() if not task.done() and not (served and link.model.hangs)]

    async def _warm(self, link: Link) -> None:
        try:
            await link.model.warm()
        except ModelTrouble as trouble:
            link.rest(trouble.trouble.value)
            self._probe_if_resting(link)
        else:
            link.worked()

    def _probe_if_resting(self, link: Link, *, warming: asyncio.Task[None] | None = None) -> None:
        if not link.resting or link in self._probed:
            return
        self._probed.add(link)
        probe = asyncio.create_task(self._probe(link, warming), name=f"probe-{link.model.name}")
        for task in (probe, warming):
            if task is not None:
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe(self, link: Link, warming: asyncio.Task[None] | None) -> None:
        """Ask for one token again and again, ever more rarely, until it comes; after the warm-up that still goes on."""
        pause_s = _PROBE_FIRST_S
        try:
            if warming is not None:
                await _warmed_late(link, warming)
            while link.resting:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _PROBE_MAX_S)
                try:
                    await link.model.warm()
                except Exception as error:
                    _log.info("model_still_rests", model=link.model.name, error=type(error).__name__)
                else:
                    link.worked()
        finally:
            self._probed.discard(link)


class _Spent:
    """All calls of a turn, those that failed too: they are paid for."""

    def __init__(self) -> None:
        self._prompt = self._cached = self._completion = self._cost_micros = 0

    def add(self, usage: UsageReported) -> None:
        self._prompt += usage.prompt
        self._cached += usage.cached
        self._completion += usage.completion
        self._cost_micros += usage.cost_micros

    def added_to(self, summary: Summary) -> Summary:
        """The summary, with the price of those that failed before it."""
        return replace(
            summary,
            prompt_tokens=summary.prompt_tokens + self._prompt,
            cached_tokens=summary.cached_tokens + self._cached,
            completion_tokens=summary.completion_tokens + self._completion,
            cost_micros=summary.cost_micros + self._cost_micros,
        )

    def reported(self) -> list[UsageReported]:
        """One report for the turn, none when no tokens were used."""
        total = UsageReported(
            prompt=self._prompt, cached=self._cached, completion=self._completion, cost_micros=self._cost_micros
        )
        return [total] if total != UsageReported(prompt=0, cached=0, completion=0) else []


async def _warmed_late(link: Link, warming: asyncio.Task[None]) -> None:
    """The rest of a warm-up that nobody waits for: the agent serves, and what is wrong now stops it no more."""
    try:
        await warming
    except Exception as error:
        _log.error("model_not_warmed", model=link.model.name, error=str(error))
        link.rest(Trouble.REFUSED.value)


async def _cancelled(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _by(ends_at: float, *, after: Sequence[Link]) -> float:
    """Until when a model may take to its first words, so that those after it have their share of the time."""
    left_s = ends_at - asyncio.get_running_loop().time()
    others = sum(not link.quick for link in after)
    kept_s = min(_PLAYBOOK_S, left_s / 2) if after else 0.0
    return ends_at - left_s + (left_s - kept_s) / (others + 1)
