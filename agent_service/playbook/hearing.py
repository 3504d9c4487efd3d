"""Answers that come without their question, or after it: recognised by what they say."""

import re
from dataclasses import dataclass
from datetime import date

from agent_service.persona import Persona, Reads, Step
from agent_service.playbook.answers import own_words, read_step
from agent_service.understanding.intents import Answer
from agent_service.understanding.text import fold

_OWN_WORDS = frozenset({Reads.TEXT, Reads.PLACE})
# "tenho contrato não"
_DENIED = re.compile(r"(?:\s+\w+){0,2}\s+nao\W*$")
_AGREES = re.compile(r"^\W*(?:s+i+m+|ss|claro|isso|ok|okay|ta bom|com certeza|pode ser|aham|uhum|certo|faz|bora)\b")
_BARE_YES_WORDS = 2


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An answer to one step, and where in the text it was found."""

    step: Step
    value: str
    start: int


def hear(text: str, persona: Persona, *, today: date) -> list[Heard]:
    """Every answer that the text holds by its content, in the order of the text."""
    folded = fold(text)
    found = [each for step in persona.script if step.heard and (each := _find(step, folded)) is not None]
    found.sort(key=lambda each: each.start)
    starts = [each.start for each in found]
    heard: list[Heard] = []
    for each in found:
        end = min((start for start in starts if start > each.start), default=len(text))
        value = _value(each, text[each.start : end], today=today)
        if value:
            heard.append(Heard(step=each.step, value=value, start=each.start))
    return heard


def agreement_before(text: str, heard: list[Heard]) -> str:
    """The "sim" in front of what was heard: it still answers the open question. A "não" there denies what follows."""
    before = text[: heard[0].start] if heard else ""
    short = 0 < len(before.split()) <= _BARE_YES_WORDS
    return before.strip() if short and _AGREES.match(fold(before)) else ""


def _find(step: Step, folded: str) -> Heard | None:
    best: Heard | None = None
    for value, patterns in step.heard.items():
        for match in (match for pattern in patterns for match in pattern.finditer(folded)):
            if best is None or match.start() > best.start:
                denied = step.reads is Reads.YES_NO and _DENIED.match(folded, match.end()) is not None
                best = Heard(step=step, value=Answer.NO.value if denied else value, start=match.start())
    return best


def _value(heard: Heard, words: str, *, today: date) -> str:
    """A closed step keeps the meaning, an open one what the lead said."""
    if heard.step.reads in _OWN_WORDS:
        return own_words(words.strip(" ,;")) or heard.value
    return read_step(heard.step, words, today=today) if heard.step.reads is Reads.PERCENT else heard.value
