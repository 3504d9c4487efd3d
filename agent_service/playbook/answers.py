"""How the answer to one step of the script is read."""

import re
from collections.abc import Callable
from datetime import date

from agent_service.persona import Reads, Step
from agent_service.understanding.intents import Answer, Intent, intents, read_answer
from agent_service.understanding.places import find_place
from agent_service.understanding.sensitive import without_sensitive
from agent_service.understanding.text import fold, sentences, squeeze

_PERCENT = re.compile(r"(?<![\d.,])(\d{1,2}(?:[.,]\d)?)\s*(?:%|por cento)")
_SMALL_NUMBER = re.compile(r"^\W*(?:uns |umas |de |acho que |mais ou menos )*(\d{1,2})\W*$")
_MAX_CHARS = 200
_EMPTY = re.compile(
    r"^\W*(?:oi+|ola|opa|bom dia|boa tarde|boa noite|k{2,}|rs+|ha(?:ha)+|obrigad[oa]|valeu|hum+|ah+)?\W*$"
)


def read_step(step: Step, text: str, *, today: date) -> str:
    """The answer as it is kept; empty when the text holds none."""
    readers: dict[Reads, Callable[[], str]] = {
        Reads.YES_NO: lambda: _yes_no(step, text),
        Reads.CHOICE: lambda: _choice(step, text),
        Reads.TEXT: lambda: _words(text),
        Reads.PLACE: lambda: _place(text),
        Reads.PERCENT: lambda: _percent(text),
    }
    reader = readers.get(step.reads)
    return reader() if reader else ""


def _yes_no(step: Step, text: str) -> str:
    answer = read_answer(text)
    if answer is not None:
        return answer.value
    folded = fold(text)
    return next((value for value, patterns in step.choices.items() if any(p.search(folded) for p in patterns)), "")


def _choice(step: Step, text: str) -> str:
    folded = fold(text)
    chosen, at = "", -1
    for value, patterns in step.choices.items():
        for match in (match for pattern in patterns for match in pattern.finditer(folded)):
            if match.start() > at:
                chosen, at = value, match.start()
    if not chosen and read_answer(text) is Answer.UNSURE:
        return Answer.UNSURE.value
    return chosen


def _words(text: str) -> str:
    told = [each for each in sentences(text) if not each.endswith("?") and not _EMPTY.match(fold(each))]
    if not told or intents(text) & {Intent.LATER, Intent.HUMAN, Intent.REFUSAL}:
        return ""
    words = squeeze(without_sensitive(" ".join(told)))
    return words[:_MAX_CHARS] if re.search(r"[^\W_]{2}", words) else ""


def _place(text: str) -> str:
    words = _words(text)
    if find_place(text, asked=True) or re.search(r"\d", words):
        return words
    # "na minha casa mesmo" tells where; "quero saber o preço" doesn't.
    return words if len(words.split()) <= 8 and read_answer(text) is None else ""


def _percent(text: str) -> str:
    folded = fold(text)
    match = _PERCENT.search(folded) or _SMALL_NUMBER.search(folded)
    if match:
        return f"{match[1].replace('.', ',')}%"
    return Answer.UNSURE.value if read_answer(text) is Answer.UNSURE else ""
