"""What is said to a turn without words, whichever model answers."""

from collections.abc import Iterable

from agent_service.conversation import Author, End, Kind, Turn
from agent_service.persona import Persona
from agent_service.playbook.draft import Reply, values
from agent_service.playbook.past import Past, fill

_WORDLESS = frozenset({Kind.STICKER})
_READABLE = frozenset({Kind.LOCATION})


def wordless_reply(persona: Persona, turn: Turn) -> Reply | None:
    """The reply to a turn that has no text at all; None when there is something for the model to read."""
    kinds = {message.kind for message in turn.messages}
    if any(message.text.strip() for message in turn.messages) or kinds & _READABLE:
        return None
    answered = any(line.author is Author.ASSISTANT for line in turn.history)
    if kinds <= _WORDLESS | {Kind.TEXT, Kind.CHOICE}:
        return Reply(bubbles=(), end=End.SILENT) if answered or turn.degraded else None
    past = Past.of(persona, turn.history)
    step = past.open_step(persona)
    photo = step.amount.photo if step is not None and step.amount is not None else ()
    if Kind.IMAGE in kinds and photo and turn.lead.bill_cents is None:
        return Reply(bubbles=(_fresh(past, photo, persona, turn),))
    if past.said(persona.media_sentence):
        return Reply(bubbles=(_fresh(past, persona.sentences.media_again, persona, turn),))
    return Reply(bubbles=(*_opening(persona, turn), persona.media_sentence))


def _opening(persona: Persona, turn: Turn) -> Iterable[str]:
    if turn.first_contact:
        variants = persona.sentences.opening_known if turn.lead.name else persona.sentences.opening
        yield fill(variants[0], values(persona, turn.lead, turn))


def _fresh(past: Past, variants: tuple[str, ...], persona: Persona, turn: Turn) -> str:
    return fill(past.pick(variants), values(persona, turn.lead, turn))
