"""How the answer to one step of the script is read."""

import re
from collections.abc import Callable
from datetime import date

from agent_service.persona import Reads, Step
from agent_service.understanding.intents import Answer, Intent, intents, read_answer
from agent_service.understanding.moments import proposes_meeting
from agent_service.understanding.places import find_place
from agent_service.understanding.sensitive import without_sensitive
from agent_service.understanding.text import fold, sentences, squeeze

_PERCENT = re.compile(r"(?<![\d.,])(\d{1,2}(?:[.,]\d)?)\s*(?:%|por cento)")
_SMALL_NUMBER = re.compile(r"^\W*(?:uns |umas |de |acho que |mais ou menos )*(\d{1,2})\W*$")
_MAX_CHARS = 200
_MAX_WORDS = 30
_PLACE_WORDS = 12
# "não tenho desconto" tells about something; "não tenho", "tenho com a outra empresa" answer what was asked.
_HAS = re.compile(
    r"\b(?:tenho|temos|tem|possuo|possuimos)\s+(?:(?:um|uma|uns|umas|o|a|os|as|algum|alguma|nenhum|nenhuma|muit[oa]|tant[oa]"
    r"|esse|essa|mais|outr[oa]|qualquer|tipo|de|que)\s+)*([a-z]{4,})"
)
_NO_THING = frozenset(
    fold(
        "nada nenhum nenhuma ainda hoje agora aqui mais muito sempre certeza atualmente infelizmente apenas somente "
        "tudo todos esse essa isso comigo desde até com sem sobre para pelo pela"
    ).split()
)
_STEM = 5
_REPEATS = re.compile(r"^\W*(?:eu )?ja (?:te |lhe )?(?:falei|disse|respondi|contei|expliquei)\b")
_EMPTY = re.compile(
    r"^\W*(?:oi+|ola|opa|bom dia|boa tarde|boa noite|k{2,}|rs+|ha(?:ha)+|obrigad[oa]|valeu|h+u*m+|ah+)?\W*$"
)


def read_step(step: Step, text: str, *, today: date) -> str:
    """The answer as it is kept; empty when the text holds none."""
    readers: dict[Reads, Callable[[], str]] = {
        Reads.YES_NO: lambda: _yes_no(step, text),
        Reads.CHOICE: lambda: _choice(step, text),
        Reads.TEXT: lambda: _free(step, text, today=today),
        Reads.PLACE: lambda: _place(step, text, today=today),
        Reads.PERCENT: lambda: _percent(text),
    }
    reader = readers.get(step.reads)
    return reader() if reader else ""


def own_words(text: str) -> str:
    """What a lead tells in their own words, as it is kept; empty when it tells nothing."""
    told = [each for each in sentences(text) if not each.endswith("?") and not _EMPTY.match(fold(each))]
    if not told or intents(text) & {Intent.LATER, Intent.HUMAN, Intent.REFUSAL}:
        return ""
    words = squeeze(without_sensitive(" ".join(told)))
    return words[:_MAX_CHARS] if re.search(r"[^\W_]{2}", words) else ""


def _yes_no(step: Step, text: str) -> str:
    folded = fold(text)
    chosen = next((value for value, patterns in step.choices.items() if any(p.search(folded) for p in patterns)), "")
    answer = read_answer(text)
    if answer is None or (chosen and answer is not Answer.NO) or about_something_else(step, text):
        return chosen
    return answer.value


def about_something_else(step: Step, text: str) -> bool:
    """Whether the text says that something is had, or not, which the question isn't about."""
    match = _HAS.search(fold(text))
    if match is None or match[1] in _NO_THING:
        return False
    patterns = [p.pattern for source in (step.choices, step.heard) for each in source.values() for p in each]
    known = {word[:_STEM] for words in (*step.ask, *patterns) for word in re.findall(r"[a-z]{4,}", fold(words))}
    return match[1][:_STEM] not in known


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


def _free(step: Step, text: str, *, today: date) -> str:
    """Words that plausibly answer: no day for a meeting, no denial of something that wasn't asked about."""
    words = own_words(text)
    if _REPEATS.match(fold(text)):
        return ""
    if not words or len(words.split()) > _MAX_WORDS or proposes_meeting(text, today=today):
        return ""
    denies = read_answer(text) is Answer.NO and about_something_else(step, text)
    return "" if denies else words


def _place(step: Step, text: str, *, today: date) -> str:
    words = _free(step, text, today=today)
    if len(words.split()) > _PLACE_WORDS:
        words = ", ".join(each.strip() for each in words.split(",") if find_place(each, asked=True))
    if words and (find_place(text, asked=True) or re.search(r"\d", words)):
        return words
    # "na minha casa mesmo" tells where; "quero saber o preço" doesn't.
    return words if len(words.split()) <= 8 and read_answer(text) is None else ""


def _percent(text: str) -> str:
    folded = fold(text)
    match = _PERCENT.search(folded) or _SMALL_NUMBER.search(folded)
    if match:
        return f"{match[1].replace('.', ',')}%"
    return Answer.UNSURE.value if read_answer(text) is Answer.UNSURE else ""
