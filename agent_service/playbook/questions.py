"""Which of the persona's answers a sentence asks for."""

import re

from agent_service.persona import Answered, Persona, Step
from agent_service.understanding.intents import Intent, intents, is_question
from agent_service.understanding.text import fold

_STARTS_QUESTION = re.compile(
    r"^\W*(?:(?:e|mas|entao|so)\s+)*(?:(?:tem|da|pode|e|eh|precisa|existe|voces?|vcs?)\b"
    r"|(?:me )?(?:diz|diga|da|fala|fale|passa|passe|manda|mande|informa|informe)\s+(?:(?:logo|ai|so)\s+)?"
    r"(?:d?[oa]s?|uma?|sobre)\b)"
)
_ANSWERED_OTHERWISE = frozenset({Intent.HUMAN, Intent.COMPLAINT, Intent.INTEREST, Intent.LATER, Intent.REFUSAL})


# "queria entender direitinho": what is asked for follows in the next clause.
_ONLY_ASKS = re.compile(
    r"\W*(?:(?:e|mas|eu|so)\s+)*(?:queria|quero|gostaria de|preciso) (?:saber|entender)(?:\s+\w+){0,2}\W*"
)
_STILL_THERE = re.compile(
    r"\W*(?:(?:e|oi|ola),?\s+)?(?:voces?|vcs?|ce|tu|alguem|tem alguem) (?:ainda )?(?:ta|esta|tao|estao)? ?ai\W*"
)
_TOPIC_WORDS = 3
_TELLS = frozenset(fold("não nem sem tenho temos já quero queria prefiro pode ser sim moro sou acho vou pago").split())


def entries_for(sentence: str, persona: Persona, open_step: Step | None) -> list[Answered]:
    """The entries whose patterns the sentence fits; a general one gives way to a special one."""
    folded = fold(sentence)
    found = [entry for entry in persona.entries if any(pattern.search(folded) for pattern in entry.patterns)]
    if open_step is not None and not is_question(sentence):
        # "não tenho contrato" answers the question about contracts and doesn't ask for them.
        asks = [fold(ask) for ask in open_step.ask]
        found = [each for each in found if not any(p.search(ask) for p in each.patterns for ask in asks)]
    special = [entry for entry in found if not entry.general]
    return special or found


def stated_entries(clause: str, persona: Persona) -> list[Answered]:
    """The entries that are answered without being asked for: objections, worries."""
    folded = fold(clause)
    return [entry for entry in persona.entries if any(pattern.search(folded) for pattern in entry.stated)]


def named_entries(clause: str, persona: Persona, open_step: Step | None) -> list[Answered]:
    """The entries that a topic alone asks for ("preço", "garantia"); a denial asks for nothing."""
    words = re.findall(r"[a-z]+", fold(clause))
    if not 0 < len(words) <= _TOPIC_WORDS or _TELLS.intersection(words):
        return []
    return entries_for(clause, persona, open_step)


def may_ask(sentence: str) -> bool:
    """Whether the sentence begins as questions without a mark do: "tem garantia"."""
    return _STARTS_QUESTION.match(fold(sentence)) is not None


def worth_an_answer(sentence: str) -> bool:
    """Whether a question that nothing fits is more than "oi?" and is not served otherwise."""
    words = re.findall(r"[a-z]+", fold(sentence))
    if _ONLY_ASKS.fullmatch(fold(sentence)) or _STILL_THERE.fullmatch(fold(sentence)):
        return False
    return len(words) >= 3 and not intents(sentence) & _ANSWERED_OTHERWISE
