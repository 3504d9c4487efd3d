"""Every text of a persona, with its key, what it is for, and which placeholders are filled there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent_service.persona import Persona
from agent_service.persona_check.finding import Loc

# The language model's prompt fills these; the playbook fills them everywhere.
_ALWAYS = frozenset({"agent", "company", "city", "state"})
_SPOKEN = _ALWAYS | {"greeting"}
_WITH_NAME = frozenset({"opening_known", "nice_to_meet", "name_changed", "back_again_known"})
_WITH_MOMENT = frozenset({"meeting_handoff", "meeting_noted"})
_LAST_WORDS = frozenset({"handoff", "handoff_complaint", "meeting_handoff", "refused", "disqualified"})


@dataclass(frozen=True, kw_only=True)
class Said:
    """One text. `spoken` texts reach leads as they are; the others tell a language model what to say."""

    loc: Loc
    text: str
    filled: frozenset[str]
    spoken: bool = True
    asks: bool = False
    last: bool = False


def texts(persona: Persona) -> Iterator[Said]:
    """All of them, in the order of the files."""
    for key in ("voice", "goal", "hours"):
        yield Said(loc=(key,), text=getattr(persona, key), filled=_ALWAYS, spoken=False)
    for key in ("facts", "never"):
        yield from _each((key,), getattr(persona, key), filled=_ALWAYS, spoken=False)
    for key in ("morning", "afternoon", "evening"):
        yield Said(loc=("greetings", key), text=getattr(persona.greetings, key), filled=frozenset())
    for key in ("honest_sentence", "limit_sentence", "media_sentence"):
        # Sent as they are, some of them by another service.
        yield Said(loc=(key,), text=getattr(persona, key), filled=frozenset(), last=key != "media_sentence")
    for key in type(persona.sentences).model_fields:
        filled = _SPOKEN | {"name"} if key in _WITH_NAME else _SPOKEN | {"moment"} if key in _WITH_MOMENT else _SPOKEN
        variants = getattr(persona.sentences, key)
        yield from _each(("sentences", key), variants, filled=filled, last=key in _LAST_WORDS)
    yield from _of_the_script(persona)
    for offer in persona.offers:
        yield from _each(("offers", offer.id, "pitch"), offer.pitch, filled=_ALWAYS)
    for place, entries in (("faq", persona.faq), ("objections", persona.objections)):
        for entry in entries:
            yield from _each((place, entry.id, "answers"), entry.answers, filled=_SPOKEN)
    for at, trigger in enumerate(persona.handoff_triggers):
        yield from _each(("handoff_triggers", at, "say"), trigger.say, filled=_SPOKEN, last=True)


def _of_the_script(persona: Persona) -> Iterator[Said]:
    for step in persona.script:
        loc: Loc = ("script", step.id)
        yield from _each((*loc, "ask"), step.ask, filled=_ALWAYS, asks=True)
        if step.amount is not None:
            yield from _each((*loc, "amount", "noted"), step.amount.noted, filled=_SPOKEN | {"amount"})
            yield from _each((*loc, "amount", "photo"), step.amount.photo, filled=_SPOKEN)
        for value, variants in step.replies.items():
            yield from _each((*loc, "replies", value), variants, filled=_SPOKEN)


def _each(
    loc: Loc,
    variants: Iterable[str],
    *,
    filled: frozenset[str],
    spoken: bool = True,
    asks: bool = False,
    last: bool = False,
) -> Iterator[Said]:
    for at, text in enumerate(variants):
        yield Said(loc=(*loc, at), text=text, filled=filled, spoken=spoken, asks=asks, last=last)
