"""Whether the patterns fit what they should: something, not everything, and in no time."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from agent_service.persona import Answered, Persona
from agent_service.persona_check.finding import Finding, Loc, error, warning
from agent_service.persona_check.growth import grows
from agent_service.persona_check.samples import samples
from agent_service.understanding.text import fold, squeeze

# What every lead writes; a pattern that fits several of them fits everything.
_EVERYDAY = (
    *(
        "oi",
        "ola",
        "sim",
        "nao",
        "ok",
        "bom dia",
        "boa tarde",
        "obrigado",
        "ana",
        "joao silva",
        "400",
        "nao sei",
        "quero",
    ),
    *("pode ser", "kkk", "👍", "amanha as 15h", "ta bom", "me chamo carlos", "moro em sao paulo", "quero saber mais"),
)
_MANY = 3


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A pattern, its key, and how many everyday texts it may fit (None: as many as it likes, they are its answers)."""

    loc: Loc
    pattern: re.Pattern[str]
    may_fit: int | None


def check(persona: Persona) -> Iterator[Finding]:
    """Each pattern by itself, then those that stand in two entries."""
    for each in _listed(persona):
        yield from _fits(each)
        if grows(each.pattern):
            yield error(each.loc, "takes longer and longer on long texts: no repetition inside another one, please")
    yield from _shared((*persona.faq, *persona.objections), {entry.id for entry in persona.objections})


def _fits(each: _Listed) -> Iterator[Finding]:
    if each.pattern.search(""):
        yield error(each.loc, "fits an empty text, and so everything")
        return
    fitted = [text for text in _EVERYDAY if each.pattern.search(text)]
    if each.may_fit is not None and len(fitted) > each.may_fit:
        yield error(each.loc, f"fits what everybody writes: {', '.join(fitted[:_MANY])}")
    made_up = samples(source(each.pattern))
    if not any(each.pattern.search(fold(squeeze(text))) for text in made_up):
        yield warning(each.loc, "fits nothing that could be made up for it; is there a blank too many?")


def _listed(persona: Persona) -> Iterator[_Listed]:
    for at, pattern in enumerate(persona.never_say):
        yield _Listed(loc=("never_say", at), pattern=pattern, may_fit=0)
    for number, trigger in enumerate(persona.handoff_triggers):
        for at, pattern in enumerate(trigger.patterns):
            yield _Listed(loc=("handoff_triggers", number, "patterns", at), pattern=pattern, may_fit=0)
    for place, entries in (("faq", persona.faq), ("objections", persona.objections)):
        for entry in entries:
            for key in ("patterns", "stated"):
                for at, pattern in enumerate(getattr(entry, key)):
                    yield _Listed(loc=(place, entry.id, key, at), pattern=pattern, may_fit=_MANY - 1)
    for offer in persona.offers:
        for at, pattern in enumerate(offer.patterns):
            yield _Listed(loc=("offers", offer.id, "patterns", at), pattern=pattern, may_fit=_MANY - 1)
    yield from _of_the_script(persona)


def _of_the_script(persona: Persona) -> Iterator[_Listed]:
    for step in persona.script:
        for key, may_fit in (("choices", None), ("heard", 0)):
            for value, patterns in getattr(step, key).items():
                for at, pattern in enumerate(patterns):
                    yield _Listed(loc=("script", step.id, key, value, at), pattern=pattern, may_fit=may_fit)
        if step.amount is not None:
            yield _Listed(loc=("script", step.id, "amount", "topic"), pattern=step.amount.topic, may_fit=0)
            if step.amount.ignore is not None:
                yield _Listed(loc=("script", step.id, "amount", "ignore"), pattern=step.amount.ignore, may_fit=0)


def _shared(entries: tuple[Answered, ...], objections: set[str]) -> Iterator[Finding]:
    owners: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for pattern in {pattern.pattern: pattern for pattern in entry.patterns}.values():
            owners[source(pattern)].append(entry.id)
    for text, ids in owners.items():
        if len(ids) > 1:
            place = "objections" if ids[-1] in objections else "faq"
            yield warning((place, ids[-1]), f"has the pattern {text} that {ids[0]} has too; both would answer")


def source(pattern: re.Pattern[str]) -> str:
    """The pattern as it stands in the file, without the word boundaries put around it."""
    return pattern.pattern.removeprefix(r"(?<!\w)(?:").removesuffix(r")(?!\w)")
