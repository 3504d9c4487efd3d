"""A reply in the making: its words, its facts and its end."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent_service.conversation import Effect, End, Lead, LeadPatch, Message, Turn
from agent_service.persona import Persona, Reads
from agent_service.playbook import facts
from agent_service.playbook.past import Past, fill
from agent_service.playbook.scene import Reading
from agent_service.understanding.moments import show_moment
from agent_service.understanding.money import show_money
from agent_service.understanding.names import first_name
from agent_service.understanding.text import clip, fold


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Bubbles to say and facts to keep."""

    bubbles: tuple[str, ...]
    effects: tuple[Effect, ...] = ()
    end: End = End.STOP


@dataclass(kw_only=True)
class Draft:
    """A reply in the making."""

    persona: Persona
    turn: Turn
    past: Past
    reading: Reading
    lead: Lead
    patch: LeadPatch
    handoff: str = ""
    brief: bool = False
    used: list[str] = field(default_factory=list)

    def word(self, variants: Sequence[str]) -> str:
        """A variant that wasn't said yet, with its placeholders filled."""
        variant = self.past.pick(variants, self.used)
        self.used.append(variant)
        return fill(variant, values(self.persona, self.lead, self.turn))


def values(persona: Persona, lead: Lead, turn: Turn) -> Mapping[str, str]:
    """What stands for each placeholder; empty for what isn't known."""
    fields = {step.reads: step.field for step in persona.script}
    return {
        "agent": persona.agent,
        "company": persona.company,
        "city": persona.city,
        "state": persona.state,
        "name": first_name(lead.name),
        "amount": "" if lead.bill_cents is None else show_money(lead.bill_cents),
        "greeting": greeting(persona, turn.now_ms, turn.messages),
        "moment": show_moment(
            lead.preferences.get(fields.get(Reads.DAY, ""), ""),
            lead.preferences.get(fields.get(Reads.TIME, ""), ""),
        ),
    }


def greeting(persona: Persona, now_ms: int, messages: Sequence[Message] = ()) -> str:
    """The lead's own greeting, else the one for the time of day where the business lives."""
    greetings = persona.greetings
    for message in messages:
        said = fold(clip(message.text))
        for each in (greetings.morning, greetings.afternoon, greetings.evening):
            if re.search(rf"\b{re.escape(fold(each))}\b", said):
                return each
    hour = datetime.fromtimestamp(now_ms / 1000, persona.zone).hour
    if 5 <= hour < 12:
        return greetings.morning
    return greetings.afternoon if 12 <= hour < 18 else greetings.evening


def note(
    draft: Draft,
    *,
    stage: str | None = None,
    interested: bool | None = None,
    qualification: str | None = None,
    score: int | None = None,
) -> None:
    """Add facts to what the reply keeps."""
    draft.patch = replace(
        draft.patch,
        stage=draft.patch.stage if stage is None else stage,
        interested=draft.patch.interested if interested is None else interested,
        qualification=draft.patch.qualification if qualification is None else qualification,
        score=draft.patch.score if score is None else score,
    )


def hand_over(draft: Draft, reason: str, *, stage: str | None) -> None:
    """Give the conversation to a human after this reply."""
    draft.handoff = reason
    note(draft, stage=stage or draft.persona.scheduling_stage)


def field_value(draft: Draft, reads: Reads) -> str:
    """What is known of the field that is read so."""
    return next((facts.value_of(draft.lead, step.field) for step in draft.persona.script if step.reads is reads), "")
