"""The fields of a lead that a persona adds, and how a value for one of them is kept."""

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from agent_service.persona import Condition, Persona, Reads, Step
from agent_service.playbook.facts import STATE
from agent_service.policy.plain import tidy, visible
from agent_service.tool_errors import ToolRefused
from agent_service.understanding.intents import Answer, read_answer
from agent_service.understanding.moments import find_day, find_time
from agent_service.understanding.places import find_place
from agent_service.understanding.sensitive import REMOVED, without_sensitive
from agent_service.understanding.text import fold, squeeze

MAX_FIELDS = 64
MAX_BYTES = 1_024
# Facts of every lead have fields of their own.
_TYPED = frozenset({"name", "email", "amount", "flow", "interested"})
_PERCENT = re.compile(r"\s*(\d{1,3}(?:[.,]\d{1,2})?)\s*(?:%|por cento)?\s*", re.IGNORECASE)
_STATE_CODE = 2
_CLOSED = frozenset({Reads.YES_NO, Reads.CHOICE})


@dataclass(frozen=True, kw_only=True)
class PreferenceField:
    """One field; `answers` are all that it can hold, empty when it holds free words."""

    name: str
    reads: Reads = Reads.TEXT
    answers: tuple[str, ...] = ()


def preference_fields(persona: Persona) -> dict[str, PreferenceField]:
    """By name and sorted: the fields that the script asks for and those that a condition looks at."""
    fields = {name: PreferenceField(name=name) for name in _looked_at(persona) - _TYPED}
    for step in persona.script:
        if step.field not in _TYPED:
            fields[step.field] = _merged(fields.get(step.field), step)
    return {name: fields[name] for name in sorted(fields)[:MAX_FIELDS]}


def read_preference(field: PreferenceField, value: Any, *, today: date | None) -> str:
    """The value as it is kept. Raises ToolRefused."""
    text = _words(value)
    if field.name == STATE:
        return _state(text)
    if field.answers:
        return _answer(field, text)
    if field.reads is Reads.PERCENT:
        return _percent(text)
    if field.reads is Reads.DAY and today is not None:
        return find_day(text, today=today) or _free(text)
    if field.reads is Reads.TIME:
        return find_time(text, asked=True) or _free(text)
    return _free(text)


def _looked_at(persona: Persona) -> set[str]:
    conditions = [step.when for step in persona.script] + [offer.when for offer in persona.offers]
    conditions += [condition for criterion in persona.criteria for condition in criterion.any_of]
    return {name for condition in conditions for name in _names(condition)}


def _names(condition: Condition) -> set[str]:
    return {*condition.known, *condition.unknown, *condition.equals, *condition.differs}


def _merged(before: PreferenceField | None, step: Step) -> PreferenceField:
    answers: tuple[str, ...] = ()
    if step.reads in _CLOSED:
        closed = (Answer.YES.value, Answer.NO.value) if step.reads is Reads.YES_NO else ()
        known = before.answers if before else ()
        answers = tuple(dict.fromkeys((*known, *closed, *step.choices, Answer.UNSURE.value)))
    return PreferenceField(name=step.field, reads=step.reads, answers=answers)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return Answer.YES.value if value else Answer.NO.value
    if isinstance(value, int | float):
        value = f"{value:.12g}".replace(".", ",") if abs(value) < 1e9 else ""
    if not isinstance(value, str):
        raise ToolRefused("tem de ser um texto.")
    text = squeeze(tidy(visible(value)))
    if not text or len(text.encode()) > MAX_BYTES:
        raise ToolRefused("tem de ser um texto curto.")
    return text


def _answer(field: PreferenceField, text: str) -> str:
    wanted = fold(text)
    found = next((each for each in field.answers if fold(each) == wanted), None)
    answer = read_answer(text)
    if found is None and answer is not None and answer.value in field.answers:
        found = answer.value
    if found is None:
        raise ToolRefused(f"tem de ser um de: {', '.join(field.answers)}.")
    return found


def _state(text: str) -> str:
    place = find_place(text if len(text) > _STATE_CODE else text.upper(), asked=True)
    if place is None or not place.state:
        raise ToolRefused('tem de ser um estado do Brasil, por exemplo "PE".')
    return place.state


def _percent(text: str) -> str:
    match = _PERCENT.fullmatch(text)
    if match and float(match[1].replace(",", ".")) <= 100:
        return f"{match[1].replace('.', ',')}%"
    if read_answer(text) is Answer.UNSURE:
        return Answer.UNSURE.value
    raise ToolRefused('tem de ser uma porcentagem, por exemplo "20%".')


def _free(text: str) -> str:
    kept = squeeze(without_sensitive(text))
    if not re.search(r"\w", kept.replace(REMOVED, "")):
        raise ToolRefused("documentos, dados bancários e telefones não são guardados.")
    return kept
