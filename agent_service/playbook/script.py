"""Where a conversation stands in the persona's script, and what comes next."""

from agent_service.conversation import Lead
from agent_service.persona import Persona, Reads, Step
from agent_service.playbook import facts
from agent_service.playbook.past import Past
from agent_service.playbook.scene import MOMENTS, Reading

_CORRECTABLE = frozenset({Reads.MONEY, Reads.NAME, Reads.OFFER}) | MOMENTS


def open_step(persona: Persona, lead: Lead, past: Past) -> Step | None:
    """The question that the turn may answer; what is known already isn't read again from a late "sim"."""
    step = past.open_step(persona)
    if step is None or (facts.value_of(lead, step.field) and step.reads not in _CORRECTABLE):
        return None
    return step


def next_step(persona: Persona, lead: Lead, past: Past, reading: Reading) -> Step | None:
    """The next question: not known, not answered just now, not evaded too often, and with words left to ask it in.

    Who named a day for the meeting is only asked what is essential.
    """
    hurried = meeting_noted(persona, lead)
    for step in persona.script:
        if hurried and not step.essential:
            continue
        if facts.value_of(lead, step.field) or step.id in reading.answered or not facts.holds(step.when, lead):
            continue
        if step.tries <= _evasions(step, past, reading) or (step.tries == 1 and past.tries(step)):
            continue
        if past.tries(step) < len(step.ask):
            return step
        if reading.asks:
            # Out of words for it, but the lead is asking and not evading: answer, and leave the question open.
            return None
    return None


def meeting_noted(persona: Persona, lead: Lead) -> bool:
    """Whether the lead named a day or time already: then only what is essential is still asked."""
    return any(step.reads in MOMENTS and facts.value_of(lead, step.field) for step in persona.script)


def _evasions(step: Step, past: Past, reading: Reading) -> int:
    just_asked = past.asks_now and past.asked[-1].step_id == step.id
    return past.evasions(step) + (1 if just_asked and not reading.asks else 0)
