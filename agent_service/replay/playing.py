"""One turn to the agent, and what it said and found out."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol

from agent_service.conversation import EffectCalled, End, Ended, HandOver, Lead, ModelEvent, TextDelta, Turn
from agent_service.persona import Persona
from agent_service.playbook.facts import merged

# Nobody waits for the answer; a model that is asked by hand may be a slow one.
REPLY_S = 120.0


class Answering(Protocol):
    """What is asked: `Agent` is one."""

    def reply(self, turn: Turn, *, ends_at: float) -> AsyncGenerator[ModelEvent, None]:
        """Write one reply."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, the lead after it, and how it came about. `trouble` is the error that there was instead."""

    said: tuple[str, ...]
    lead_after: Lead
    handed_over: bool = False
    reason: str = ""
    silent: bool = False
    stood_in: str = ""
    trouble: str = ""


async def answer(agent: Answering, persona: Persona, turn: Turn) -> Answer:
    """Ask, and apply what the reply changes as the store would."""
    text, lead, handoffs, ended = "", turn.lead, list[str](), Ended(why=End.STOP)
    events = agent.reply(turn, ends_at=asyncio.get_running_loop().time() + REPLY_S)
    try:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, EffectCalled):
                if isinstance(event.effect, HandOver):
                    handoffs.append(event.effect.reason)
                else:
                    lead = merged(lead, event.effect)
            elif isinstance(event, Ended):
                ended = event
    except Exception as error:
        return Answer(said=(), lead_after=turn.lead, trouble=f"{type(error).__name__}: {error}")
    finally:
        await events.aclose()
    if handoffs:
        lead = replace(lead, stage=persona.handoff_stage)
    lead = replace(lead, preferences={key: value for key, value in lead.preferences.items() if value})
    return Answer(
        said=tuple(bubble.strip() for bubble in text.split("\n\n") if bubble.strip()),
        lead_after=lead,
        handed_over=bool(handoffs),
        reason="; ".join(handoffs),
        silent=ended.why is End.SILENT,
        stood_in=ended.fallback_reason,
    )
