"""Words that call for a human at once, whichever model answers."""

from agent_service.conversation import Effect, HandOver, LeadPatch, Turn
from agent_service.persona import Persona
from agent_service.playbook.draft import Reply, values
from agent_service.playbook.past import Past, fill
from agent_service.playbook.standing import handoff_words
from agent_service.understanding.text import clip, fold


def trigger_reason(text: str, persona: Persona) -> str:
    """Why the text calls for a human; empty when it doesn't."""
    folded = fold(text)
    for trigger in persona.handoff_triggers:
        if any(pattern.search(folded) for pattern in trigger.patterns):
            return trigger.reason
    return ""


def triggered_reply(persona: Persona, turn: Turn) -> Reply | None:
    """The one sentence that hands over a turn with such words; None when it has none."""
    reasons = [reason for message in turn.messages if (reason := trigger_reason(clip(message.text), persona))]
    if not reasons:
        return None
    handed_over = persona.handoff_stage
    stage: tuple[Effect, ...] = (LeadPatch(stage=handed_over),) if turn.lead.stage != handed_over else ()
    words = handoff_sentence(persona, turn, reasons[-1])
    return Reply(bubbles=(words,), effects=(*stage, HandOver(reason=reasons[-1])))


def handoff_sentence(persona: Persona, turn: Turn, reason: str) -> str:
    """What the persona says to somebody who is handed over for that reason."""
    words = Past.of(persona, turn.history).pick(handoff_words(persona, reason))
    return fill(words, values(persona, turn.lead, turn))
